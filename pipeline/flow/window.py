"""Several batches at work at a time, handed on in the order they came, or as they get ready."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from pipeline.batch import Batch
from pipeline.flow.gate import Rest

__all__ = ("Places", "Window", "Work")

Work = Callable[[Batch, Rest], Awaitable[Callable[[], Awaitable[bool]]]]
"""Works on a batch and returns what hands the result on, which tells whether to go on."""


class Places:
    """So many places, which may become more or fewer while they are used: who is in one leaves when it is done.

    Whoever waits gets a place in the order of asking. ``freed`` is called when one becomes free that nobody waits for.
    """

    def __init__(self, count: int, freed: Callable[[], None] = lambda: None) -> None:
        self._count = count
        self._free = count
        """Below zero, so many are still in use that are to be given up."""
        self._freed = freed
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def wanted(self) -> bool:
        """Whether a place that is given back is somebody else's, or nobody's any more."""
        return self._free < 0 or bool(self._waiting)

    def take(self) -> bool:
        """Take a place if one is free, and tell whether one was."""
        if self._free <= 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Take a place, waiting for one."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
            # A scope that was cancelled in the turn in which the place came free cancels nobody who has something.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self.release()
            raise

    def release(self) -> None:
        """Give a place back."""
        self._free += 1
        self._share_out()

    def resize(self, count: int) -> None:
        """Have so many from now on."""
        self._free += count - self._count
        self._count = count
        self._share_out()

    @asynccontextmanager
    async def rest(self) -> AsyncGenerator[None, None]:
        """Give the place back for a while."""
        self.release()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.acquire()

    def _share_out(self) -> None:
        while self._free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
        if self._free > 0:
            self._freed()


class _Slot:
    """A batch under way, in its place in the order."""

    __slots__ = ("batch", "finish")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.finish: Callable[[], Awaitable[bool]] | None = None
        """What hands it on, once it is worked on."""


class Window:
    """Works on up to ``concurrency`` batches at a time and holds at most twice as many.

    ``work`` returns what hands its result on; that is awaited in the order of arrival when ``ordered``, else at once,
    one at a time, and says whether to go on. A worker that is done goes on with the next batch that waits, in the same
    turn; a retry that waits gives its place back with the ``Rest`` that it is given, not its turn in the order.
    """

    def __init__(self, concurrency: int, ordered: bool, work: Work) -> None:
        self.workers = Places(concurrency, self._start)
        self._held = Places(2 * concurrency)
        self._ordered = ordered
        self._work = work
        self._slots: deque[_Slot] = deque()
        self._waiting: deque[_Slot] = deque()
        self._group: TaskGroup | None = None
        self._news = asyncio.Event()
        """That a batch may be handed on, or that no more come."""
        self._ended = False
        self._over = False
        """Whether a worker was cancelled or failed: a place that comes free then is nobody's."""

    def resize(self, concurrency: int) -> None:
        """Work on so many batches at a time from the next one on."""
        self.workers.resize(concurrency)
        self._held.resize(2 * concurrency)

    async def run(self, receive: Callable[[], Awaitable[Batch | None]]) -> None:
        """Work until ``receive`` gives None and all is handed on, or a handing-on says to stop.

        What is left then is dropped unsettled, and gives back the permits that its batcher would wait for.
        """
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._hand_on, self._group.cancel_scope)
                await self._receive(receive)
        finally:
            for slot in self._slots:
                slot.batch.forget()

    async def _receive(self, receive: Callable[[], Awaitable[Batch | None]]) -> None:
        while True:
            await self._held.acquire()
            batch = await receive()
            if batch is None:
                break
            slot = _Slot(batch)
            self._slots.append(slot)
            self._waiting.append(slot)
            self._start()
        self._ended = True
        self._news.set()

    def _start(self) -> None:
        """Start a worker for each batch that waits, as long as places are free."""
        while self._group is not None and not self._over and self._waiting and self.workers.take():
            self._group.start_soon(self._go_through, self._waiting.popleft())

    async def _go_through(self, slot: _Slot) -> None:
        """Work in a place on a batch, and on those that wait behind it until somebody else has more right to it."""
        try:
            while True:
                slot.finish = await self._work(slot.batch, self.workers.rest)
                if not self._ordered or slot is self._slots[0]:
                    self._news.set()
                if self.workers.wanted or not self._waiting:
                    return
                slot = self._waiting.popleft()
        except BaseException:
            self._over = True
            raise
        finally:
            self.workers.release()

    async def _hand_on(self, scope: anyio.CancelScope) -> None:
        while True:
            slot = self._next()
            if slot is None:
                if self._ended and not self._slots:
                    return
                self._news.clear()
                await self._news.wait()
                continue
            self._slots.remove(slot)
            if slot.finish is not None and not await slot.finish():
                scope.cancel()
                return
            self._held.release()

    def _next(self) -> _Slot | None:
        """Return the batch to hand on now: the oldest in order, or else the oldest that is worked on."""
        if self._ordered:
            return self._slots[0] if self._slots and self._slots[0].finish is not None else None
        return next((slot for slot in self._slots if slot.finish is not None), None)
