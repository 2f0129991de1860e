"""Several batches at work at a time, handed on in the order they came, or as they get ready."""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from pipeline.batch import Batch

__all__ = ("Places", "Window", "Workers")


class Places:
    """So many places, which may become more or fewer while they are used: who is in one leaves when it is done."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._surplus = 0
        self._free = anyio.Semaphore(count)

    async def acquire(self) -> None:
        """Take a place, waiting for one."""
        await self._free.acquire()

    def release(self) -> None:
        """Give a place back."""
        if self._surplus:
            self._surplus -= 1
        else:
            self._free.release()

    @asynccontextmanager
    async def rest(self) -> AsyncGenerator[None, None]:
        """Give the place back for a while."""
        self.release()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self.acquire()

    def resize(self, count: int) -> None:
        """Have so many from now on."""
        more, self._count = count - self._count, count
        for _ in range(more):
            self.release()
        for _ in range(-more):
            try:
                self._free.acquire_nowait()
            except anyio.WouldBlock:
                self._surplus += 1


class Workers:
    """Places to work in. A retry that waits gives its place back with `rest`, not its turn in the order."""

    def __init__(self, count: int) -> None:
        self._places = Places(count)
        self.resize = self._places.resize
        self.rest = self._places.rest

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self._places.release()


class _Slot:
    """A batch under way, in its place in the order."""

    __slots__ = ("batch", "finish", "ready")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.ready = anyio.Event()
        self.finish: Callable[[], Awaitable[bool]] | None = None


class Window:
    """Works on up to ``concurrency`` batches at a time and holds at most twice as many.

    ``work`` returns what hands its result on; that is awaited in the order of arrival when ``ordered``, else at once,
    one at a time, and says whether to go on.
    """

    def __init__(self, concurrency: int, ordered: bool) -> None:
        self.workers = Workers(concurrency)
        self._held = Places(2 * concurrency)
        self._ordered = ordered
        self._slots: deque[_Slot] = deque()
        self._arrived = anyio.Event()
        self._ended = False

    def resize(self, concurrency: int) -> None:
        """Work on so many batches at a time from the next one on."""
        self.workers.resize(concurrency)
        self._held.resize(2 * concurrency)

    async def run(
        self,
        receive: Callable[[], Awaitable[Batch | None]],
        work: Callable[[Batch], Awaitable[Callable[[], Awaitable[bool]]]],
    ) -> None:
        """Work until ``receive`` gives None and all is handed on, or a handing-on says to stop.

        What is left then is dropped unsettled, and gives back the permits that its batcher would wait for.
        """
        try:
            await self._run(receive, work)
        finally:
            for slot in self._slots:
                ticket, slot.batch.ticket = slot.batch.ticket, None
                if ticket is not None:
                    ticket.smooth = False
                    ticket.close()

    async def _run(
        self,
        receive: Callable[[], Awaitable[Batch | None]],
        work: Callable[[Batch], Awaitable[Callable[[], Awaitable[bool]]]],
    ) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._hand_on, group.cancel_scope)
            while True:
                await self._held.acquire()
                batch = await receive()
                if batch is None:
                    break
                slot = _Slot(batch)
                self._slots.append(slot)
                self._arrived.set()
                group.start_soon(self._work, batch, slot, work)
            self._ended = True
            self._arrived.set()

    async def _work(
        self, batch: Batch, slot: _Slot, work: Callable[[Batch], Awaitable[Callable[[], Awaitable[bool]]]]
    ) -> None:
        async with self.workers:
            slot.finish = await work(batch)
        slot.ready.set()
        if not self._ordered:
            self._arrived.set()

    async def _hand_on(self, scope: anyio.CancelScope) -> None:
        while True:
            slot = self._next()
            if slot is None:
                if self._ended and not self._slots:
                    return
                self._arrived = anyio.Event()
                # What came between looking and making the event is seen now.
                if self._next() is None and not (self._ended and not self._slots):
                    await self._arrived.wait()
                continue
            await slot.ready.wait()
            self._slots.remove(slot)
            if slot.finish is not None and not await slot.finish():
                scope.cancel()
                return
            self._held.release()

    def _next(self) -> _Slot | None:
        if self._ordered:
            return self._slots[0] if self._slots else None
        return next((slot for slot in self._slots if slot.ready.is_set()), None)
