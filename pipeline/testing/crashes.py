"""Crash points: a run that ends in the middle, at a place that a test chooses."""

from pipeline.errors import StorageError

__all__ = ("CrashAt", "Crashed")


class Crashed(StorageError):
    """Raised at a crash point.

    It counts as storage that failed, the one kind of error after which the engine touches nothing more: no attempt is
    made again, nothing is settled and no last checkpoint is taken, as if the process had been killed.
    """


class CrashAt:
    """Crashes at the n-th chance, counted from 1, and never again; 0 is never.

    A test counts up until a run ends unharmed; then it has crashed at every chance there is::

        for n in itertools.count(1):
            crash = CrashAt(n)
            try:
                await build(crash).run()
            except StorageError:
                await build(CrashAt(0)).run()
            check()
            if not crash.happened:
                break
    """

    def __init__(self, chance: int) -> None:
        self._left = chance
        self.where = ""
        """The chance that it crashed at."""

    def __call__(self, where: str = "") -> None:
        """Take a chance.

        :raises Crashed: when it is the one.
        """
        self._left -= 1
        if self._left == 0:
            self.where = where or "somewhere"
            raise Crashed(f"crashed on purpose: {self.where}")

    def __repr__(self) -> str:
        # Shown in what a state file keeps of the plan; the same every time.
        return "CrashAt"

    @property
    def happened(self) -> bool:
        """Whether it has crashed."""
        return bool(self.where)
