"""The source of kind `inlet`: records that somebody in this process hands in."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, ClassVar

import anyio
from msgspec import Meta

from pipeline.clock import Clock
from pipeline.sizes import estimate
from pipeline.stage import Chunk, Duration, Feed, Place, Progress, Source, SourceContext, key
from stages.sources.line import Line

__all__ = ("Inlet", "InletReader")

_CHUNK = 500


class Inlet(Source, kw_only=True):
    """Takes the records that `submit` hands in. What was unsettled in a crash is gone. Fed over HTTP or in Python."""

    shares: ClassVar[bool] = True
    fed: ClassVar[bool] = True

    capacity: Annotated[int, Meta(ge=1), key("Records waiting to be read at most; one more is refused.")] = 10_000
    patience: Annotated[Duration, key("Who has waited so long goes before all others, whatever their priority.")] = 30.0

    def replays(self) -> bool:
        """Return False: nobody hands in a record twice."""
        return False

    def endless(self) -> bool:
        """Return True: it ends when its input is closed."""
        return True

    async def open(self, context: SourceContext) -> "InletReader":
        """Return a reader to put records into."""
        patience: Any = self.patience
        return InletReader(self.capacity, context.clock, patience)


class InletReader(Feed):
    """A line of places: `put` on one side, `read` on the other."""

    def __init__(self, capacity: int, clock: Clock, patience: float = 30.0) -> None:
        self._capacity = capacity
        self._clock = clock
        self._line = Line(patience)
        self._arrived = asyncio.Event()
        self._turns: deque[asyncio.Future[None]] = deque()
        self._promised = 0  # places for those whose turn has come, and who have not run yet
        self._read = 0
        self._held = False
        self._closed = False

    @property
    def capacity(self) -> int:
        """Places that may wait at a time."""
        return self._capacity

    @property
    def waiting(self) -> int:
        """Places that wait now."""
        return len(self._line)

    def put_nowait(self, place: Place) -> None:
        """Let a place wait to be read; refuses when there is no room, or others wait for it."""
        if not self._closed and (self._turns or self._full()):
            raise anyio.WouldBlock
        self._add(place)

    async def put(self, place: Place) -> None:
        """Let a place wait to be read, when there is room; those who wait for that go on in the order they came."""
        if not self._closed and (self._turns or self._full()):
            await self._wait_for_turn()
            self._promised -= 1
        self._add(place)

    def withdraw(self, place: Place) -> bool:
        """Take a place out of the line; tell whether it still was in it."""
        was_there = self._line.withdraw(place)
        self._let_in()
        return was_there

    def withdraw_all(self) -> list[Place]:
        """Take all places out of the line and return them."""
        places = self._line.take(len(self._line), self._clock.now())
        self._let_in()
        return places

    def hold(self) -> None:
        """Give no records until `go_on`."""
        self._held = not self._closed

    def go_on(self) -> None:
        """Give records again."""
        self._held = False
        self._arrived.set()

    def close_input(self) -> None:
        """Take no more places; those that wait are still read."""
        self._closed = True
        self.go_on()
        self._let_in()

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield what was put, as soon as there is any, until the input is closed."""
        while True:
            await self._arrived.wait()
            while self._line and not self._held:
                places = self._line.take(self._some(), self._clock.now())
                records = [place.record for place in places]
                self._read += len(records)
                self._let_in()
                yield Chunk(records, self._read, size=estimate(records), numbered=partial(self._tell, places))
            if self._closed:
                return
            self._arrived.clear()

    def progress(self) -> Progress:
        """Tell how many records were read, of those put so far and not withdrawn."""
        return Progress(self._read, self._read + len(self._line))

    async def close(self) -> None:
        """Close the input too: nobody would read it."""
        self.close_input()

    def _some(self) -> int:
        return max(1, self.wanted()) if self.wanted is not None else _CHUNK

    def _tell(self, places: list[Place], first: int) -> None:
        if self.numbered is not None:
            self.numbered(first, places)

    def _add(self, place: Place) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        self._line.add(place, self._clock.now())
        self._arrived.set()

    def _full(self) -> bool:
        return len(self._line) + self._promised >= self._capacity

    async def _wait_for_turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._promised -= 1
                self._let_in()
            elif turn in self._turns:
                self._turns.remove(turn)
            raise

    def _let_in(self) -> None:
        while self._turns and (self._closed or not self._full()):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                self._promised += 1
