"""The bounded channel between two actors. A full one makes `send` wait: that wait is the backpressure."""

import asyncio
from collections import deque
from collections.abc import Callable

from pipeline.batch import Batch
from pipeline.clock import Clock

__all__ = ("Channel",)


class Channel:
    """A queue of batches, bounded in records (or in batches) and bytes, for any number of senders and one receiver.

    Data flows from `send` to `receive`, in order. A batch over a bound enters an empty channel alone. Nothing is lost
    when a waiting task is cancelled: a batch is in the channel or with its sender, and a wake-up that came too late is
    passed on. All senders must `close`; then the receiver gets what is left, and after that None.
    """

    def __init__(
        self, clock: Clock, *, records: int | None = None, batches: int = 4, bytes: int = 16 * 2**20, senders: int = 1
    ) -> None:
        self._clock = clock
        self._queue: deque[Batch] = deque()
        self._senders: deque[asyncio.Future[None]] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._open_senders = senders
        self._poked = False
        self._wants_data = True
        self.taker: Callable[[Batch], bool] | None = None
        """Offered each batch in its sender's turn while nothing waits: a receiver that takes it so spares a switch."""
        self._holding = False
        self._held: list[asyncio.Future[None]] = []
        self.abandoned = False
        self.max_records = records
        self.max_batches = batches
        self.max_bytes = bytes
        self.records = 0
        self.bytes = 0
        self.peak_records = 0
        self.blocked_seconds = 0.0
        """For how long, added up, senders waited for room."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def closed(self) -> bool:
        """Whether all senders have closed."""
        return self._open_senders <= 0

    @property
    def ended(self) -> bool:
        """Whether all senders have closed and nothing is left."""
        return self.closed and not self._queue

    @property
    def fill(self) -> float:
        """How full the channel is, from 0 to 1, by the bound that is nearest."""
        by_count = self.records / self.max_records if self.max_records else len(self._queue) / self.max_batches
        return min(1.0, max(by_count, self.bytes / self.max_bytes))

    def waiting(self) -> list[Batch]:
        """Return the batches in it."""
        return list(self._queue)

    async def send(self, batch: Batch) -> None:
        """Put a batch in, waiting while it has no room. A channel that was abandoned takes and forgets it."""
        if self._senders or not self._has_room(batch):
            await self._wait_for_room(batch)
        if self.abandoned:
            batch.forget()
            return
        if self.taker is not None and not self._queue and self.taker(batch):
            if self._holding:
                await self._wait_for_release()
            return
        self._queue.append(batch)
        self.records += len(batch.records)
        self.bytes += batch.size
        if self.records > self.peak_records:
            self.peak_records = self.records
        self._wake_receiver()

    async def emptied(self) -> None:
        """Wait, in line with those who send, until nothing is inside."""
        if self._queue and not self.abandoned:
            await self._wait_for_room(Batch([], size=self.max_bytes + 1))

    async def receive(self) -> Batch | None:
        """Return the next batch, waiting for one; None when all senders have closed and nothing is left."""
        while not self._queue:
            if self.closed:
                return None
            await self.changed()
        return self.take()

    def take(self) -> Batch | None:
        """Return the next batch if there is one."""
        if not self._queue:
            return None
        batch = self._queue.popleft()
        self.records -= len(batch.records)
        self.bytes -= batch.size
        self._wake_sender()
        return batch

    async def changed(self, data: bool = True) -> None:
        """Wait, as the receiver, until there is a batch or all senders have closed (if ``data``), or somebody poked."""
        if self._poked or (data and (self._queue or self.closed)):
            self._poked = False
            return
        self._wants_data = data
        self._receiver = asyncio.get_running_loop().create_future()
        try:
            await self._receiver
        finally:
            self._receiver = None
        self._poked = False

    def poke(self) -> None:
        """Wake the receiver although nothing came, so that it looks at the time."""
        self._poked = True
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def hold(self) -> None:
        """Let each sender whose batch is taken in its turn wait until `release`: what it brought fills the receiver."""
        self._holding = True

    def release(self) -> None:
        """Let senders go on."""
        if self._holding:
            self._holding = False
            held, self._held = self._held, []
            for turn in held:
                if not turn.done():
                    turn.set_result(None)

    def close(self) -> None:
        """Tell, as one of the senders, that nothing more comes."""
        self._open_senders -= 1
        if self.closed:
            self._wake_receiver()

    def abandon(self) -> None:
        """Tell, as the receiver, that nothing more is taken: what is inside and what comes stays unsettled."""
        self.abandoned = True
        for batch in self._queue:
            batch.forget()
        self._queue.clear()
        self.records = self.bytes = 0
        self.release()
        for sender in self._senders:
            if not sender.done():
                sender.set_result(None)

    def _has_room(self, batch: Batch) -> bool:
        if not self._queue or self.abandoned:
            return True
        if self.bytes + batch.size > self.max_bytes:
            return False
        if self.max_records is None:
            return len(self._queue) < self.max_batches
        return self.records + len(batch.records) <= self.max_records

    async def _wait_for_room(self, batch: Batch) -> None:
        started = self._clock.now()
        first = False
        try:
            while True:
                turn = asyncio.get_running_loop().create_future()
                # Who was woken and found too little room stays first in line.
                if first:
                    self._senders.appendleft(turn)
                else:
                    self._senders.append(turn)
                try:
                    await turn
                except asyncio.CancelledError:
                    self._leave_line(turn)
                    raise
                self._senders.remove(turn)
                if self._has_room(batch):
                    break
                first = True
        finally:
            self.blocked_seconds += self._clock.now() - started
        self._wake_sender()

    async def _wait_for_release(self) -> None:
        started = self._clock.now()
        turn = asyncio.get_running_loop().create_future()
        self._held.append(turn)
        try:
            await turn
        finally:
            self.blocked_seconds += self._clock.now() - started

    def _leave_line(self, turn: asyncio.Future[None]) -> None:
        self._senders.remove(turn)
        # Its wake-up came too late, or found it cancelled and went nowhere: the next in line looks for itself.
        self._wake_sender()

    def _wake_sender(self) -> None:
        if self._senders and not self._senders[0].done():
            self._senders[0].set_result(None)

    def _wake_receiver(self) -> None:
        if self._wants_data and self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
