"""The actor of a source: reads chunks, numbers their records, and lets them in as there is room."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import Struct

from pipeline.batch import Batch, Failed, SourceSpan
from pipeline.clock import Clock
from pipeline.errors import ConfigError, StageError
from pipeline.flow.outlet import Outlet, batch_before
from pipeline.flow.ownership import copy_records
from pipeline.flow.restart import Restarts
from pipeline.flow.run import YIELD_AFTER, Broken, Failure, Halt, Run
from pipeline.settle.cut import SourcePoint
from pipeline.sizes import estimate
from pipeline.spans import Spans
from pipeline.stage import Chunk, Feed, Reader, Source, SourceContext, made

__all__ = ("SourceActor",)

_IDLE = 0.05
"""Seconds without a chunk after which a source that never ends was not reading but waiting for somebody to write."""


class _Resting:
    """A clock that remembers how long its user slept: a source that keeps to a rate, or looks again later."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.slept = 0.0
        self.now = clock.now
        self.wall = clock.wall
        self.call_at = clock.call_at

    async def sleep(self, seconds: float) -> None:
        started = self.now()
        try:
            await self._clock.sleep(seconds)
        finally:
            self.slept += self.now() - started


class _Passed(Struct):
    """A chunk that was read: enough to find the cursor for any of its numbers."""

    first: int
    count: int
    before: Any
    """The cursor before it, or what makes it."""
    cursors: Callable[[int], Any] | None
    whole: bool
    """False for a chunk that a limit cut: there is no cursor behind what was taken of it."""


class SourceActor:
    """Runs one source. ``room`` says whether another chunk may be read now; ``limit`` is how many records may be."""

    def __init__(
        self,
        run: Run,
        name: str,
        source: Source,
        context: SourceContext,
        point: SourcePoint | None,
        room: Callable[[], bool],
        limit: int | None = None,
    ) -> None:
        self.name = name
        self.ended = False
        """Whether the source came to its end by itself."""
        self.endless = source.endless()
        self._run = run
        self._source = source
        self._context = context
        self._clock = context.clock = _Resting(context.clock)
        self.outlet = Outlet(run, [])
        """Where its batches go; set before it runs."""
        self._room = room
        self._limit = limit
        self._reader: Reader | None = None
        self._scope: anyio.CancelScope | None = None
        self._passed: deque[_Passed] = deque()
        self._metrics = run.metrics[name]
        self._restarts = Restarts(run, name, source.restart)
        self._cursor: Any
        self._frontier: int
        self._start(point)

    def _start(self, point: SourcePoint | None) -> None:
        """Number on from the last checkpoint; what of it is settled already is let go again when it is read."""
        replays = self._source.replays()
        if point is None or not replays:
            # No number ever means two records: where nothing can be read again, each run numbers in a range of its own.
            first = self._frontier = 0 if replays else first_of_run(self._run.number)
            self._known = Spans()
            self._cursor = None
        else:
            first = point.number - point.skip
            self._frontier = point.number
            self._known = Spans([(first, point.number), *point.islands])
            self._cursor = point.cursor
        self._context.cursor = self._cursor
        self._run.ledger.start(self.name, first)

    async def open(self) -> None:
        """Open the source at its cursor."""
        self._context.cursor = self._cursor = made(self._cursor)
        self._reader = await self._source.open(self._context)

    @property
    def first_number(self) -> int:
        """The number below which no record of the source comes again, as things were at the start."""
        return self._frontier

    @property
    def prompt(self) -> bool:
        """Whether no chunk keeps it waiting."""
        return self._reader is not None and self._reader.prompt

    @property
    def reader(self) -> Reader | None:
        """The open source."""
        return self._reader

    async def run(self) -> None:
        """Read until the source ends, the limit is reached, or reading is to stop; then close the outlet."""
        self._metrics.state = "running"
        self._run.on_stop.append(self._interrupt)
        if not self._run.reading:
            self._interrupt()
        try:
            while True:
                try:
                    await self._read()
                    break
                except Halt:
                    raise
                except Exception as error:
                    self._check_restart(error)
                    # Open it again behind the last chunk that was let in.
                    await self.close()
                    await self.open()
        except Halt as halt:
            self._run.stop(halt)
        finally:
            self._run.on_stop.remove(self._interrupt)
            self._metrics.state = "stopped"
            self.outlet.close()

    def _check_restart(self, error: Exception) -> None:
        try:
            self._restarts.check(error)
        except StageError as broken:
            raise Broken(self.name, broken) from error

    def point(self) -> SourcePoint:
        """Return where to go on from, as things are settled now.

        What the last checkpoint knew to be settled and this run has not read again yet is settled all the same.
        """
        frontier = self._run.ledger.frontiers[self.name]
        ahead = Spans((max(low, frontier.next), high) for low, high in self._known if high > frontier.next)
        number = frontier.number
        if number == frontier.next:
            number = ahead.end_of_run(number)
        self._let_go(number)
        if not self._passed:
            cursor, skip = made(self._cursor), number - frontier.next
        else:
            chunk = self._passed[0]
            cursor, skip = made(chunk.before), number - chunk.first
            if 0 < skip <= chunk.count and chunk.cursors is not None:
                cursor, skip = chunk.cursors(skip - 1), 0
        islands = [(low, high) for low, high in (*frontier.islands, *ahead) if low >= number]
        return SourcePoint(cursor=cursor, skip=skip, number=number, islands=islands)

    def _let_go(self, number: int) -> None:
        """Forget the chunks whose records are all settled below a number: nobody goes back behind that."""
        while self._passed and self._passed[0].whole and self._passed[0].first + self._passed[0].count <= number:
            self._passed.popleft()

    async def forget(self, point: SourcePoint) -> None:
        """Tell the source that a checkpoint with this point is saved."""
        if self._reader is not None:
            await self._reader.forget(point.cursor)

    async def close(self) -> None:
        """Close the source."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()

    @property
    def _reading(self) -> bool:
        # Whoever has put a record into a feed waits for its answer: a drain reads it to its end.
        return self._run.reading or (isinstance(self._reader, Feed) and self._run.halt is None)

    def _interrupt(self) -> None:
        if isinstance(self._reader, Feed):
            self._reader.close_input()
        if self._scope is not None and not self._reading:
            self._scope.cancel()

    async def _read(self) -> None:
        assert self._reader is not None
        async with aclosing(_generator(self._reader.read())) as chunks:
            late: Chunk | None = None
            # One scope for all chunks: entering one costs as much as ten records.
            with anyio.CancelScope() as scope:
                turn = self._working()
                while self._reading and self._limit != 0:
                    await self._wait_for_room()
                    if not self._reading:
                        return
                    chunk = await self._next(chunks, scope)
                    if chunk is None:
                        return
                    if scope.cancel_called:
                        late = chunk
                        break
                    await self._admit(chunk)
                    chunk = None
                    if self._working() - turn > YIELD_AFTER:
                        # Nothing need have waited where all is read, worked on and taken in this task.
                        await anyio.lowlevel.checkpoint()
                        turn = self._working()
            if late is not None:
                # Interrupted too late: what was read can't be put back. Outside of the scope only a deadline ends it.
                await self._admit(late)
            self.ended = self.ended or self._limit == 0

    def _working(self) -> float:
        """Return the time, as a clock would show it that stands still while this task waits."""
        metrics = self._metrics
        return self._run.clock.now() - metrics.waiting_in_seconds - metrics.waiting_out_seconds

    async def _wait_for_room(self) -> None:
        if self._room() and not isinstance(self._reader, Feed):
            return
        started = self._run.clock.now()
        # Counted before the room is looked for: whoever looks and finds none has batchers flush for us.
        self._run.waiting_for_room += 1
        try:
            while self._reading and not self._room():
                await self._run.settled()
            if isinstance(self._reader, Feed):
                # What has left its line can't be overtaken by a higher priority any more.
                await self.outlet.emptied()
        finally:
            self._run.waiting_for_room -= 1
        self._metrics.waiting_out_seconds += self._run.clock.now() - started

    async def _next(self, chunks: AsyncIterator[Chunk], scope: anyio.CancelScope) -> Chunk | None:
        """Return the next chunk; ``scope`` is cancelled when reading is to stop meanwhile."""
        started = self._run.clock.now()
        self._scope = scope
        try:
            return await anext(chunks)
        except StopAsyncIteration:
            self.ended = True
            return None
        finally:
            self._scope = None
            seconds = self._run.clock.now() - started
            idle = seconds if self.endless and seconds > _IDLE else min(self._clock.slept, seconds)
            self._clock.slept = 0.0
            self._metrics.waiting_in_seconds += idle
            self._metrics.busy_seconds += seconds - idle

    async def _admit(self, chunk: Chunk) -> None:
        """Number a chunk and send on what of it is not settled yet."""
        chunk, whole = self._within_limit(chunk)
        count = len(chunk.records)
        first = self._run.ledger.read(self.name, count)
        if chunk.numbered is not None:
            chunk.numbered(first)
        if self._run.has_state:
            self._let_go(self._run.ledger.frontiers[self.name].number)
            self._passed.append(_Passed(first, count, self._cursor, chunk.cursors, whole))
        self._cursor = chunk.marked
        if not count:
            return
        self._metrics.records_in += count
        self._run.locate(self.name, first, count, chunk.position)
        batch, halt = self._batch(chunk, first, count)
        self._metrics.records_out += len(batch.records)
        self._metrics.batches += 1
        outlet, clock = self.outlet, self._run.clock
        started, worked = clock.now(), outlet.worked
        await outlet.send(batch)
        self._metrics.waiting_out_seconds += clock.now() - started - (outlet.worked - worked)
        if halt is not None:
            raise halt

    def _within_limit(self, chunk: Chunk) -> tuple[Chunk, bool]:
        """Return what the limit leaves of a chunk, and whether that is all; only records not yet settled count."""
        if self._limit is None:
            return chunk, True
        first = self._run.ledger.frontiers[self.name].next
        new = 0
        for index in range(len(chunk.records)):
            if first + index in self._known:
                continue
            if new == self._limit:
                self._limit = 0
                return _first_of(chunk, index), False
            new += 1
        self._limit -= new
        return chunk, True

    def _batch(self, chunk: Chunk, first: int, count: int) -> tuple[Batch, Halt | None]:
        records = copy_records(chunk.records) if self._source.shares else chunk.records
        batch = Batch(
            records,
            self.name,
            range(first, first + count),
            spans=[(self.name, first, first + count)],
            size=chunk.size or estimate(records),
            admitted=self._run.clock.now(),
            metadata=self._run.metadata,
        )
        halt = self._take_out_failed(batch, chunk) if chunk.failed else None
        if halt is not None:
            head = batch_before(self._run, batch, halt[1])
            batch = head if head is not None else Batch([])
        if first < self._known.high:
            self._drop_known(batch)
        return batch, halt[0] if halt is not None else None

    def _take_out_failed(self, batch: Batch, chunk: Chunk) -> tuple[Halt, int] | None:
        known = self._known
        mask = [True] * len(batch.records)
        for done, index in enumerate(chunk.failed):
            mask[index] = False
            if batch.numbers[index] in known:
                continue
            failed: Failed = chunk.records[index]
            halt = self._run.fail(self.name, batch, index, Failure(failed.record, failed.error))
            if halt is not None:
                batch.keep([*mask[:index], *[True] * (len(mask) - index)])
                return halt, index - done
        batch.keep(mask)
        return None

    def _drop_known(self, batch: Batch) -> None:
        """Let go of what the last checkpoint says is settled."""
        keep = [number not in self._known for number in batch.numbers]
        remaining: list[SourceSpan] = []
        for source, low, high in batch.spans:
            number = low
            while number < high:
                end = min(self._known.end_of_run(number), high)
                if end > number:
                    self._run.ledger.recall(source, number, end)
                    number = end
                    continue
                following = min((start for start, _ in self._known if start > number), default=high)
                remaining.append((source, number, min(following, high)))
                number = min(following, high)
        batch.keep(keep)
        batch.spans = remaining


def first_of_run(run: int) -> int:
    """Return the first number of a source that can't replay: each run numbers in a range of its own."""
    return run << 40


def _first_of(chunk: Chunk, count: int) -> Chunk:
    return Chunk(
        chunk.records[:count],
        chunk.marked,
        size=chunk.size * count // len(chunk.records),
        failed=[index for index in chunk.failed if index < count],
        cursors=chunk.cursors,
        position=chunk.position,
    )


def _generator(chunks: AsyncIterator[Chunk]) -> Any:
    if not hasattr(chunks, "aclose"):
        raise ConfigError(f"{type(chunks).__name__}: a reader's `read` must be an async generator")
    return chunks
