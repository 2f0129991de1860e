"""How often a process may die before the run gives up."""

from pipeline.errors import PipelineError

__all__ = ("Patience",)

_DEATHS = 3


class Patience:
    """Counts deaths in which nothing was settled since the death before."""

    def __init__(self) -> None:
        self._deaths: dict[int, tuple[int, int]] = {}

    def lose(self, number: int, settled: int, who: str, how: str) -> None:
        """Take note of a death in the work of this number, when so many records of it were settled.

        ``who`` died, and ``how``, are for people.

        :raises PipelineError: when it is one too many.
        """
        deaths, before = self._deaths.get(number, (0, settled))
        deaths = deaths + 1 if settled <= before else 1
        self._deaths[number] = deaths, max(settled, before)
        if deaths >= _DEATHS:
            raise PipelineError(f"{who} died {deaths} times without settling a record; the last time it {how}")
