"""A clock that stands still until a test moves it."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TypeVar

import anyio
import anyio.lowlevel

__all__ = ("ManualClock", "settle")

T = TypeVar("T")

_TURNS = 24
"""Turns of the loop that tasks get before it is looked whether they all wait; the look is dear when one doesn't."""

_LOOK = 0.002
"""Seconds between two looks at what is under way elsewhere."""


class ManualClock:
    """Time that passes only when it is told to (see `pipeline.clock.Clock`). For one event loop.

    ``start`` is `now` at the beginning, in seconds, ``wall`` the seconds since 1970 at that moment.
    """

    def __init__(self, start: float = 0.0, wall: float = 1_700_000_000.0) -> None:
        self._now = start
        self._wall = wall - start
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._called_off: set[int] = set()

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._now

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._wall + self._now

    @property
    def waiting(self) -> int:
        """How many timers and sleepers wait for this clock."""
        return len(self._due) - len(self._called_off)

    @property
    def next_at(self) -> float | None:
        """When the next timer is due; None when there is none."""
        while self._due and self._due[0][1] in self._called_off:
            self._called_off.discard(heapq.heappop(self._due)[1])
        return self._due[0][0] if self._due else None

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved so far; may be cancelled."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not turn.done():
                turn.set_result(None)

        call_off = self.call_at(self._now + seconds, wake)
        try:
            await turn
        finally:
            call_off()

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back when the clock has been moved to a moment; returns what calls that off."""
        number = next(self._order)
        heapq.heappush(self._due, (when, number, callback))
        return lambda: self._call_off(number)

    async def advance(self, seconds: float) -> None:
        """Move the clock, stopping at each timer on the way; whatever a timer set off settles before the next.

        Waits until all other tasks wait for something; work in threads is not waited for.
        """
        until = self._now + seconds
        await settle()
        while (when := self.next_at) is not None and when <= until:
            self._fire(when)
            await settle()
        self._now = max(self._now, until)
        await settle()

    async def finish(
        self, work: Awaitable[T], within: float = 7200.0, *, elsewhere: Callable[[], bool] = lambda: False
    ) -> T:
        """Await something, moving the clock to the next timer whenever all tasks wait.

        For work that is held up by nothing but this clock: what runs in a thread meanwhile counts as waiting, unless
        ``elsewhere`` says that something is under way; then the clock stands still until that is done.

        :raises AssertionError: when everything waits and no timer is left, or ``within`` so many seconds of this clock
            the work has not ended.
        """
        # Whoever moves the clock stands outside of the work; its end is awaited below, or it is cancelled.
        ended = asyncio.ensure_future(work)
        until = self._now + within
        try:
            await settle()
            while not ended.done():
                if elsewhere():
                    await asyncio.wait([ended], timeout=_LOOK)
                    await settle()
                    continue
                when = self.next_at
                if when is None:
                    # A long chain of tasks that end one after the other looks blocked between two of them.
                    await settle()
                    if ended.done() or self.next_at is not None:
                        continue
                    raise AssertionError("all tasks wait, and no timer is left that could wake one")
                if when > until:
                    raise AssertionError(f"the work has not ended within {within:g} seconds of the clock")
                self._fire(when)
                await settle()
            return await ended
        finally:
            ended.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([ended])

    def _fire(self, when: float) -> None:
        _, number, callback = heapq.heappop(self._due)
        self._now = max(self._now, when)
        # Called off from here on means nothing: it has been called.
        self._called_off.discard(number)
        callback()

    def _call_off(self, number: int) -> None:
        if any(number == waiting for _, waiting, _ in self._due):
            self._called_off.add(number)


async def settle() -> None:
    """Return when all other tasks of the loop wait for something."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    await anyio.wait_all_tasks_blocked()
