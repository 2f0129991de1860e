"""A place for a worker: one process, another when that dies, and one partition at a time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from pipeline.errors import PipelineError
from pipeline.workers.child import Child
from pipeline.workers.patience import Patience
from pipeline.workers.reserve import Reserve
from pipeline.workers.words import Assign, Ended, Leave, Progress, Refused, Said, Setup, Word

__all__ = ("Slot", "Work")

_PARTING = 1.0
"""Seconds in which a worker that was told to leave does."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a slot asks of the coordinator, and tells it.

    ``take`` gives the next partition, None when there is none; ``assign`` says how to run it, once all it needs is
    there; ``lost`` is told how the worker of a partition died; ``stopping`` says that nothing is to be started again.
    """

    take: Callable[[], int | None]
    assign: Callable[[int], Awaitable[Assign]]
    hear: Callable[[Said | Progress], None]
    ended: Callable[[Ended], None]
    lost: Callable[[int, str], None]
    settled: Callable[[int], int]
    title: Callable[[int], str]
    stopping: Callable[[], bool]


class Slot:
    """Runs partitions until there are no more."""

    def __init__(self, setup: Setup, work: Work, patience: Patience, reserve: Reserve) -> None:
        self._setup = setup
        self._reserve = reserve
        self._work = work
        self._patience = patience
        self._heard = False
        self.child: Child | None = None
        """The process at work, if there is one."""

    async def run(self) -> None:
        """Run one partition after the other.

        :raises PipelineError: when a worker can't be set up, or dies again and again.
        """
        try:
            while (number := self._work.take()) is not None:
                while not await self._run(number) and not self._work.stopping():
                    pass
        finally:
            await self._close()

    async def _run(self, number: int) -> bool:
        """Run a partition; tell whether it came to an end, whatever that was."""
        if self.child is None:
            self.child = await Child.begin(self._setup, self._reserve)
            self._heard = False
        assigned = await self._work.assign(number)
        if self._work.stopping():
            return True
        self.child.say(assigned)
        while (word := await self.child.hear()) is not None:
            if isinstance(word, Ended):
                if word.lost:
                    await anyio.sleep(0.02)  # the coordinator hears of the writer's end about now
                    self._lose(number, "lost the writer")
                    return False
                self._work.ended(word)
                return True
            self._heard = True
            self._hear(word)
        child, self.child = self.child, None
        how = await child.close()
        if self._work.stopping():
            return True
        self._work.lost(number, how)
        self._lose(number, how)
        return False

    def _lose(self, number: int, how: str) -> None:
        who = f"the worker of {self._work.title(number)}"
        self._patience.lose(number, self._work.settled(number), who, how)

    def _hear(self, word: Word) -> None:
        if isinstance(word, Refused):
            error = PipelineError(word.error)
            error.exit_code = word.code
            raise error
        if isinstance(word, Said | Progress):
            self._work.hear(word)

    async def _close(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        if not self._heard:
            child.kill()  # it still starts, and has nothing to finish
        child.say(Leave())
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_PARTING):
                await child.close()
                return
            child.kill()
            await child.close()
