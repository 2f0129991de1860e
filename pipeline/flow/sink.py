"""The actor of a sink: writes batches, settles them, and stands still for a cut."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

from pipeline.batch import Batch, Origin
from pipeline.errors import StageError
from pipeline.flow.attempts import Attempts, Outcome, Spent, Trial
from pipeline.flow.channel import Channel
from pipeline.flow.gate import Abandoned, Rest
from pipeline.flow.outlet import batch_before
from pipeline.flow.parts import Parts, Unreachable
from pipeline.flow.restart import Restarts
from pipeline.flow.run import Failure, Halt, Place, Run
from pipeline.flow.window import Window
from pipeline.settle.cut import SinkPoint
from pipeline.spans import Held
from pipeline.stage import PositionWriter, Sink, SinkContext, TransactionWriter, Writer

__all__ = ("SinkActor",)


class _Written(NamedTuple):
    """Records of one source that were written together."""

    source: str
    numbers: Sequence[int]
    children: list[str] | None
    highest: int


class SinkActor:
    """Runs one sink. Batches of an ordered sink are written one at a time, in order."""

    def __init__(self, run: Run, name: str, sink: Sink, context: SinkContext, point: SinkPoint | None) -> None:
        self.name = name
        self.inbox = Channel(run.clock)
        """Where its batches come from; set before it runs."""
        self.writer: Writer | None = None
        self._run = run
        self._sink = sink
        self._context = context
        self._metrics = run.metrics[name]
        self._attempts = Attempts(run, name, sink)
        self._restarts = Restarts(run, name, sink.restart)
        # What the sink holds of records that will come again: from the cut, or from its own database.
        # At least once drops nothing: records that were gathered anew must not be taken for those that it holds.
        exact = context.delivery == "exactly_once"
        known = Held.decode(point.held if point is not None and exact else None)
        # What it holds of sources that aren't read in this run is kept for the run that reads them.
        self._held, self._others = known.part(run.ledger.frontiers)
        self._recovered = bool(self._held)
        self._keeps = False
        # Also while it is opened again, when there is no writer to ask.
        self._has_position = False
        # What was written since, as far as the frontier has not passed it.
        self._written: deque[_Written] = deque()
        self._concurrency = sink.concurrency
        self._window: Window | None = None
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Open the sink where the last checkpoint left it."""
        self.writer = await self._sink.open(self._context)
        self._has_position = isinstance(self.writer, PositionWriter)
        self._keeps = self._has_position and self._run.has_state and self._context.delivery == "exactly_once"
        if isinstance(self.writer, TransactionWriter):
            self._held, _ = self.writer.held().part(self._run.ledger.frontiers)
            self._recovered = bool(self._held)

    async def close(self) -> None:
        """Close the sink."""
        writer, self.writer = self.writer, None
        if writer is not None:
            await writer.close()

    def holds(self, origin: Origin) -> bool:
        """Tell whether the sink held a record, or a child of it, when it was opened."""
        if not self._recovered:
            return False
        return origin in self._held or (not origin.child and self._held.holds_any(origin.source, origin.number))

    async def run(self) -> None:
        """Write until the inbox ends."""
        self._metrics.state = "running"
        try:
            if not await self._one_by_one():
                self._window = Window(self._concurrency, True, self._take_beside)
                await self._window.run(self._receive)
        finally:
            self._metrics.state = "stopped"

    async def _one_by_one(self) -> bool:
        """Write without the cost of a window as long as that will do; tell whether the inbox has ended."""
        with self._run.place(self.name) as place:
            while self._concurrency == 1:
                batch = self.inbox.take()
                if batch is None:
                    batch = await self._receive()
                if batch is None or not await self._take(batch, nullcontext, place):
                    return True
                # Let go before the next is waited for: what is read meanwhile takes the place of these records.
                place.batch = batch = None
        return False

    def resize(self, concurrency: int) -> None:
        """Write so many batches at a time from the next one on."""
        self._metrics.concurrency = self._concurrency = concurrency
        if self._window is not None:
            self._window.resize(concurrency)

    # --- a cut ---

    async def hold_still(self, final: bool) -> None:
        """Let no write begin until `go_on`, wait for the one under way, and make the position one to cut back to."""
        if self._has_position:
            await self._writing.acquire()
            try:
                if isinstance(self.writer, PositionWriter):
                    await self.writer.prepare(final)
            except BaseException:
                self._writing.release()
                raise

    def go_on(self) -> None:
        """Let writes begin again."""
        if self._has_position:
            self._writing.release()

    def point(self) -> SinkPoint | None:
        """Return the position of all finished writes, and what it holds of records that may come again."""
        if isinstance(self.writer, TransactionWriter):
            # Its own database knows: saved is only that it must, so that a lost one is noticed.
            return SinkPoint(position="its own database")
        if not self._has_position:
            return None
        # One that could not be opened again has no writer: then the one before said how far it came.
        position = self.writer.position() if isinstance(self.writer, PositionWriter) else self._context.position
        held = Held()
        frontiers = {source: frontier.number for source, frontier in self._run.ledger.frontiers.items()}
        self._written = deque(entry for entry in self._written if entry.highest >= frontiers[entry.source])
        for source, numbers, children, _ in self._written:
            held.add(source, numbers if children is not None else sorted(numbers), children)
        self._forget(frontiers)
        held.merge(self._held)
        held.merge(self._others)
        for source, frontier in frontiers.items():
            held.prune(source, frontier)
        return SinkPoint(position=position, held=held.encode())

    async def sync(self) -> None:
        """Make what the cut names durable."""
        if isinstance(self.writer, PositionWriter):
            await self.writer.sync()
        elif isinstance(self.writer, TransactionWriter):
            await self.writer.seal()

    async def committed(self, frontiers: dict[str, int]) -> None:
        """Take note that the cut is saved."""
        if isinstance(self.writer, PositionWriter):
            await self.writer.committed()
        elif isinstance(self.writer, TransactionWriter):
            self._forget(frontiers)
            await self.writer.prune(frontiers)

    def _forget(self, frontiers: dict[str, int]) -> None:
        if self._recovered:
            for source, frontier in frontiers.items():
                self._held.prune(source, frontier)
            self._recovered = bool(self._held)

    # --- writing ---

    async def _receive(self) -> Batch | None:
        started = self._run.clock.now()
        batch = await self.inbox.receive()
        self._metrics.waiting_in_seconds += self._run.clock.now() - started
        return batch

    async def _take_beside(self, batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        """Write a batch, beside others, and return what says whether to go on."""
        with self._run.place(self.name) as place:
            going_on = await self._take(batch, rest, place)

        async def done() -> bool:
            return going_on

        return done

    async def _take(self, batch: Batch, rest: Rest, place: Place) -> bool:
        """Write a batch and settle it; tell whether to go on."""
        metrics, clock = self._metrics, self._run.clock
        started = clock.now()
        if self._run.witness is not None:
            self._run.drop_late(batch)
        place.batch = batch
        count = len(batch.records)
        metrics.records_in += count
        metrics.in_flight += 1
        metrics.last_batch = count
        going_on = await self._write(batch, rest)
        if self._run.events.records:
            self._tell_each(batch)
        metrics.in_flight -= 1
        seconds = clock.now() - started
        metrics.busy_seconds += seconds
        ticket, batch.ticket = batch.ticket, None
        metrics.took(seconds, ticket is None or ticket.smooth)
        if ticket is not None:
            ticket.close()
        return going_on

    def _tell_each(self, batch: Batch) -> None:
        seconds = self._run.clock.now() - batch.admitted
        for origin in batch.origins():
            position, key = self._run.position_of(origin), self._run.key_of(origin)
            self._run.events.emit("record", stage=self.name, position=position, key=key, seconds=seconds)

    async def _write(self, batch: Batch, rest: Rest) -> bool:
        """Write a batch and settle it, as far as it gets; returns whether to go on."""
        part = self._drop_held(batch) if self._recovered else batch
        first: Outcome | None = None
        if self._attempts.direct and part.records:
            first = await self._attempts.directly(self._put, part)
            if first.raised is None:
                self._metrics.attempts += 1
                self._run.ledger.settle(batch)
                return not self.inbox.abandoned
        return await self._write_parts(batch, part, rest, first)

    async def _write_parts(self, batch: Batch, part: Batch, rest: Rest, first: Outcome | None) -> bool:
        failed: set[Origin] = set()
        parts = self._parts(part, rest, failed, first)
        halt: Halt | None = None
        try:
            if part.records:
                await parts.run()
        except Abandoned:
            batch = self._before(batch, part, parts.first_left)
            self.inbox.abandon()
        except Unreachable as end:
            batch = self._before(batch, part, end.index)
            halt = self._run.unreachable(self.name, part.origin(end.index), end.error)
        except Halt as raised:
            batch, halt = self._before(batch, part, parts.first_left), raised
        if failed:
            if batch.ticket is not None:
                batch.ticket.failed += len(failed)
            # What failed does not count as written; its numbers are marked and settle with the batch.
            batch.keep([origin not in failed for origin in batch.origins()])
        self._run.ledger.settle(batch)
        if halt is not None:
            self._run.stop(halt)
            self.inbox.abandon()
        return not self.inbox.abandoned

    def _parts(self, batch: Batch, rest: Rest, failed: set[Origin], first: Outcome | None) -> Parts:
        """Return the work of writing a batch; the origins of records that fail are added to ``failed``."""

        async def write(indexes: Sequence[int], attempt: int) -> None:
            await self._put(batch if len(indexes) == len(batch.records) else batch.pick(indexes))

        def fail(index: int, error: Exception, attempts: int, unavailable: bool) -> None:
            failure = Failure(batch.records[index], error, attempts, unavailable)
            halt = self._run.fail(self.name, batch, index, failure)
            if halt is not None:
                raise halt
            failed.add(batch.origin(index))

        return Parts(
            self._attempts,
            batch,
            write,
            fail,
            make=lambda work, trial: self._attempt(work, batch, rest, trial),
            rest=rest,
            acknowledge=self._sink.acknowledge,
            strict=self._sink.concurrency == 1,
            stops=self._run.policies[self.name] == "stop",
            answers=self._run.answers(batch),
            first=first,
        )

    def _before(self, batch: Batch, part: Batch, index: int) -> Batch:
        """Return what of a batch comes before a record of the part of it that is written."""
        stopped = part.origin(index)
        place = next(place for place, origin in enumerate(batch.origins()) if origin == stopped)
        return batch_before(self._run, batch, place) or Batch([])

    async def _put(self, batch: Batch) -> None:
        # While it is opened again there is no writer: whoever comes then waits for it.
        alone = self._has_position or self.writer is None
        if alone:
            await self._writing.acquire()
        try:
            if self.writer is None:
                raise StageError(f"stage '{self.name}': it could not be opened again")
            await self.writer.write(batch)
            self._note(batch)
        finally:
            if alone:
                self._writing.release()

    async def _attempt(self, work: Callable[[int], Awaitable[None]], batch: Batch, rest: Rest, trial: Trial) -> None:
        while True:
            try:
                return await self._attempts.make(work, batch, rest, trial)
            except (Abandoned, Spent):
                raise
            except Exception as error:
                await self._restart(error)
                # What was tried before speaks of the sink as it was.
                trial = replace(trial, first=None)

    async def _restart(self, error: Exception) -> None:
        """Open the sink again where it is, after an error that no record explains."""
        self._restarts.check(error)
        async with self._writing:
            if isinstance(self.writer, PositionWriter):
                # What it holds and has not synced is the old writer's to make durable: the new one knows nothing of it.
                await self.writer.sync()
                self._context.position = self.writer.position()
            await self.close()
            self.writer = await self._sink.open(self._context)

    def _note(self, batch: Batch) -> None:
        """Keep the books in the very turn in which the write is done, so that no cut sees one without the other."""
        self._metrics.records_out += len(batch.records)
        if self._keeps:
            self._keep(batch)
        if self._run.witness is not None:
            self._run.witness.wrote(self.name, batch)

    def _keep(self, batch: Batch) -> None:
        """Remember which records were written; what the frontier has passed is no news to any cut."""
        written, frontiers = self._written, self._run.ledger.frontiers
        while written and written[0].highest < frontiers[written[0].source].number:
            written.popleft()
        if batch.ascending and batch.records and isinstance(batch.sources, str):
            numbers = batch.numbers
            written.append(_Written(batch.sources, numbers, batch.children, numbers[-1]))
        else:
            for source, numbers, children in batch.by_source():
                highest = numbers[-1] if batch.ascending else max(numbers)
                written.append(_Written(source, numbers, children, highest))

    def _drop_held(self, batch: Batch) -> Batch:
        held = [origin in self._held for origin in batch.origins()]
        if not any(held):
            return batch
        self._metrics.already_held += sum(held)
        return batch.pick([index for index, is_held in enumerate(held) if not is_held])
