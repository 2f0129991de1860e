"""The source of kind `inlet`: records that somebody in this process hands in."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar

import anyio
from msgspec import Meta

from pipeline.sizes import estimate
from pipeline.stage import Chunk, Progress, Reader, Source, SourceContext, key

__all__ = ("Inlet", "InletReader")

_CHUNK = 500


class Inlet(Source, kw_only=True):
    """Takes the records that `submit` hands in. What was not settled in a crash is gone. For Python only."""

    shares: ClassVar[bool] = True
    python_only: ClassVar[bool] = True

    capacity: Annotated[int, Meta(ge=1), key("Records waiting to be read at most; then whoever puts one waits.")] = (
        10_000
    )

    def replays(self) -> bool:
        """Return False: nobody hands in a record twice."""
        return False

    def endless(self) -> bool:
        """Return True: it ends when its input is closed."""
        return True

    async def open(self, context: SourceContext) -> "InletReader":
        """Return a reader to put records into."""
        return InletReader(self.capacity)


class InletReader(Reader):
    """A queue of records: `put` on one side, `read` on the other. For one event loop."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._records: deque[Any] = deque()
        self._arrived = asyncio.Event()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._promised = 0  # places for those whose turn has come, and who have not run yet
        self._put = 0
        self._read = 0
        self._closed = False

    async def put(self, record: Any) -> int:
        """Put a record behind the others, waiting for room; return how many were put before it.

        Those who wait go on in the order in which they came.

        :raises anyio.ClosedResourceError: when the input is closed.
        """
        if not self._closed and (self._waiting or self._full()):
            await self._wait_for_turn()
            self._promised -= 1
        return self._append(record)

    def put_nowait(self, record: Any) -> int:
        """Put a record behind the others at once; return how many were put before it.

        :raises anyio.WouldBlock: when there is no room.
        :raises anyio.ClosedResourceError: when the input is closed.
        """
        if not self._closed and (self._waiting or self._full()):
            raise anyio.WouldBlock
        return self._append(record)

    def close_input(self) -> None:
        """Take no more records; what was put is still read."""
        self._closed = True
        self._arrived.set()
        self._let_in()

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield what was put, as soon as there is any, until the input is closed."""
        while True:
            await self._arrived.wait()
            while self._records:
                records = [self._records.popleft() for _ in range(min(len(self._records), _CHUNK))]
                self._read += len(records)
                self._let_in()
                yield Chunk(records, self._read, size=estimate(records))
            if self._closed:
                return
            self._arrived.clear()

    def progress(self) -> Progress:
        """Tell how many records were read, of those put so far."""
        return Progress(self._read, self._put)

    async def close(self) -> None:
        """Close the input too: nobody would read it."""
        self.close_input()

    def _append(self, record: Any) -> int:
        if self._closed:
            raise anyio.ClosedResourceError
        self._records.append(record)
        self._arrived.set()
        self._put += 1
        return self._put - 1

    def _full(self) -> bool:
        return len(self._records) + self._promised >= self._capacity

    async def _wait_for_turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._promised -= 1
                self._let_in()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _let_in(self) -> None:
        while self._waiting and (self._closed or not self._full()):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._promised += 1
