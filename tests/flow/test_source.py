"""The actor of a source: numbers, cursors, and what it does when it may not read on."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from weakref import WeakSet

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline import Pipeline
from pipeline.batch import Batch, Failed
from pipeline.flow.channel import Channel
from pipeline.flow.run import Run
from pipeline.flow.source import SourceActor
from pipeline.settle.cut import SourcePoint
from pipeline.stage import Chunk, Reader, Restart, Source, SourceContext, key
from pipeline.testing import ListSource, ManualClock, Wait, settle
from pipeline.testing.opening import context_for
from stages import sinks, sources
from tests.flow.driving import channel_of, drained, outlet_to, run_of, within

pytestmark = pytest.mark.anyio


class Bench:
    """A source's actor that reads into a channel."""

    def __init__(
        self, source: Source, point: SourcePoint | None = None, limit: int | None = None, on_failure: str = "skip"
    ) -> None:
        self.clock = ManualClock()
        self.run: Run = run_of(source, clock=self.clock, on_failure=on_failure)
        self.run.has_state = True
        self.name = next(iter(self.run.topology.stages))
        self.channel = channel_of(self.run)
        self.roomy = True
        context = context_for(source, clock=self.clock)
        self.actor = SourceActor(self.run, self.name, source, context, point, lambda: self.roomy, limit)
        self.actor.outlet = outlet_to(self.run, self.channel)

    async def read(self) -> list[Batch]:
        """Return all batches, from the opening to the end."""
        await self.actor.open()
        await self.clock.finish(self.actor.run())
        return await drained(self.channel)


def numbered(batches: list[Batch]) -> list[tuple[int, Any]]:
    return [(number, record) for batch in batches for number, record in zip(batch.numbers, batch.records, strict=True)]


async def test_records_are_numbered_densely_and_settle_by_chunk() -> None:
    bench = Bench(ListSource(list("abcde"), 2))
    batches = await bench.read()
    assert numbered(batches) == list(enumerate("abcde"))
    assert [batch.spans for batch in batches] == [[(bench.name, 0, 2)], [(bench.name, 2, 4)], [(bench.name, 4, 5)]]
    assert bench.actor.ended and bench.channel.ended
    assert bench.run.ledger.account.read == 5
    assert bench.run.position_of(next(batches[1].origins())) == "listsource[2]"


async def test_a_record_that_could_not_be_read_takes_a_number_and_fails() -> None:
    bench = Bench(ListSource(["a", Failed("?", "bad line"), "c"], 3), on_failure="collect")
    assert numbered(await bench.read()) == [(0, "a"), (2, "c")]
    assert [(error["error"], error["position"]) for error in bench.run.collected] == [
        ("ValueError: bad line", "listsource[1]")
    ]


async def test_under_stop_what_came_before_a_bad_record_is_sent_and_nothing_behind() -> None:
    bench = Bench(ListSource(["a", "b", Failed("?", "bad line"), "d", "e"], 4), on_failure="stop")
    assert numbered(await bench.read()) == [(0, "a"), (1, "b")]
    assert bench.run.halt is not None and "listsource[2]: ValueError: bad line" in str(bench.run.halt)


async def test_a_limit_is_kept_to_the_record() -> None:
    bench = Bench(ListSource(list(range(20)), 6), limit=8)
    assert [record for _, record in numbered(await bench.read())] == list(range(8))
    assert bench.run.ledger.account.read == 8
    assert bench.actor.ended


async def test_nothing_is_read_while_there_is_no_room() -> None:
    bench = Bench(ListSource(list(range(6)), 2))
    await bench.actor.open()
    async with anyio.create_task_group() as group:
        bench.roomy = False
        group.start_soon(bench.actor.run)
        await settle()
        assert bench.run.ledger.account.read == 0
        bench.roomy = True
        bench.run.ledger.wake()
        await settle()
        assert bench.run.ledger.account.read == 6


async def test_a_stop_interrupts_a_read_that_waits() -> None:
    bench = Bench(ListSource([1, 2, Wait(1000), 3], 5))
    await bench.actor.open()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await settle()
        bench.run.stop_reading()
    assert not bench.actor.ended
    assert numbered(await drained(bench.channel)) == [(0, 1), (1, 2)]
    assert (bench.actor.point().cursor, bench.actor.point().skip) == (None, 0)
    assert bench.clock.now() == 0


class Cursors:
    """The cursor behind each record of a chunk, which is how many records were read."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __call__(self, index: int) -> int:
        return self._first + index + 1


class Chunks(Reader):
    """Gives chunks of two, and notes what makes their cursors for as long as somebody needs it."""

    def __init__(self) -> None:
        self.kept: WeakSet[Cursors] = WeakSet()

    async def read(self) -> AsyncIterator[Chunk]:
        for first in range(0, 200, 2):
            cursors = Cursors(first)
            self.kept.add(cursors)
            yield Chunk([first, first + 1], first + 2, cursors=cursors)


class ReadsChunks(Source):
    reader: Any

    async def open(self, context: SourceContext) -> Reader:
        reader: Reader = self.reader
        return reader


async def test_a_chunk_is_forgotten_as_it_settles_and_the_point_is_right_all_the_while() -> None:
    reader = Chunks()
    bench = Bench(ReadsChunks(reader))
    bench.channel = Channel(bench.clock, batches=4)
    bench.actor.outlet = outlet_to(bench.run, bench.channel)
    await bench.actor.open()
    most = 0
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        while (batch := await bench.channel.receive()) is not None:
            low, high = batch.spans[0][1:]
            bench.run.ledger.settle_spans([(bench.name, low, low + 1)])
            if low % 40 == 0:
                assert (bench.actor.point().cursor, bench.actor.point().skip) == (low + 1, 0)
            bench.run.ledger.settle_spans([(bench.name, low + 1, high)])
            await settle()
            most = max(most, len(reader.kept))
    assert bench.actor.point() == SourcePoint(cursor=200, skip=0, number=200, islands=[])
    # Four chunks wait in the channel; twenty go by from one look at the point to the next.
    assert most <= 8


@settings(max_examples=150, deadline=None)
@given(
    count=some.integers(0, 25),
    chunk=some.integers(1, 7),
    cursors=some.booleans(),
    limit=some.one_of(some.none(), some.integers(0, 25)),
    data=some.data(),
)
def test_from_any_point_exactly_what_was_not_settled_is_read_again_under_the_same_numbers(
    count: int, chunk: int, cursors: bool, limit: int | None, data: some.DataObject
) -> None:
    async def body() -> None:
        source = ListSource([f"r{n}" for n in range(count)], chunk, cursors=cursors)
        first = Bench(source, limit=limit)
        await first.read()
        done: set[int] = set()
        for number in data.draw(some.lists(some.integers(0, max(count - 1, 0)), unique=True, max_size=count)):
            if number < first.run.ledger.account.read:
                first.run.ledger.settle_spans([(first.name, number, number + 1)])
                done.add(number)
        point = first.actor.point()
        again = Bench(ListSource(source.records, data.draw(some.integers(1, 7)), cursors=cursors), point)
        found = await again.read()
        assert numbered(found) == [(n, f"r{n}") for n in range(count) if n not in done]
        assert again.run.ledger.account.read == count - len(done)
        for batch in found:
            again.run.ledger.settle(batch)
        assert again.run.ledger.unsettled == 0
        assert again.actor.point().number == count

    within(20, body)


class Streams(Source, kw_only=True):
    """A source that can't be read again."""

    count: Annotated[int, key("How many.")] = 3

    def replays(self) -> bool:
        return False

    async def open(self, context: SourceContext) -> Reader:
        assert context.cursor is None
        return Counted(self.count)


class Counted(Reader):
    def __init__(self, count: int) -> None:
        self.count = count

    async def read(self) -> AsyncIterator[Chunk]:
        yield Chunk(list(range(self.count)), None)


async def test_where_nothing_can_be_read_again_each_run_numbers_in_a_range_of_its_own() -> None:
    bench = Bench(Streams(), SourcePoint(cursor="old", number=5))
    [batch] = await bench.read()
    assert list(batch.numbers) == [(1 << 40) + n for n in range(3)]
    assert bench.run.position_of(next(batch.origins())).endswith("record 0")


class Breaks(Source, kw_only=True):
    """Breaks behind each chunk, so many times."""

    breaks: Annotated[list[int], key("What is left of it.")]
    opened: Annotated[list[Any], key("Cursors that it was opened with.")]

    async def open(self, context: SourceContext) -> Reader:
        self.opened.append(context.cursor)
        return Breaking(self, context.cursor or 0)


class Breaking(Reader):
    def __init__(self, source: Breaks, at: int) -> None:
        self.source = source
        self.at = at

    async def read(self) -> AsyncIterator[Chunk]:
        while self.at < 4:
            self.at += 1
            yield Chunk([self.at], self.at)
            if self.source.breaks:
                self.source.breaks.pop()
                raise RuntimeError("lost")


async def test_a_source_that_breaks_is_opened_again_behind_its_last_chunk() -> None:
    source = Breaks(breaks=[1, 1], opened=[], restart=Restart(attempts=2))
    bench = Bench(source)
    assert numbered(await bench.read()) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert source.opened == [None, 1, 2]


async def test_a_source_that_breaks_too_often_ends_the_run_by_name() -> None:
    bench = Bench(Breaks(breaks=[1, 1, 1], opened=[], restart=Restart(attempts=2)))
    assert numbered(await bench.read()) == [(0, 1), (1, 2), (2, 3)]
    assert re.search(
        r"^stage '.*' \(source .*Breaks\): RuntimeError: lost \(.*\) \(after 2 restarts\)", str(bench.run.halt)
    )
    bench = Bench(Breaks(breaks=[1], opened=[]))
    assert numbered(await bench.read()) == [(0, 1)]
    assert "RuntimeError: lost (" in str(bench.run.halt)


class Followed(Source):
    """A source that never ends by itself and has a record an hour."""

    clock: Any

    def endless(self) -> bool:
        return True

    async def open(self, context: SourceContext) -> Reader:
        return _Hourly(self.clock)


class _Hourly(Reader):
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    async def read(self) -> AsyncIterator[Chunk]:
        for n in range(2):
            await self._clock.sleep(3600)
            yield Chunk([n], n)


async def test_a_source_that_never_ends_waits_while_nobody_writes() -> None:
    clock = ManualClock()
    bench = Bench(Followed(clock=clock))
    bench.clock = clock
    bench.run.clock = clock
    await bench.read()
    metrics = bench.run.metrics[bench.name]
    assert (metrics.busy_seconds, metrics.waiting_in_seconds) == (0, 7200)


class Stubborn(Source):
    """A source whose read ends with a chunk although it is interrupted, as one in a thread does."""

    answers: Any

    async def open(self, context: SourceContext) -> Reader:
        return _Stubborn(self.answers)


class _Stubborn(Reader):
    def __init__(self, answers: anyio.Event) -> None:
        self._answers = answers

    async def read(self) -> AsyncIterator[Chunk]:
        yield Chunk([0], 1)
        with anyio.CancelScope(shield=True):
            await self._answers.wait()
        yield Chunk([1], 2)
        yield Chunk([2], 3)


async def test_what_was_read_although_interrupted_is_sent_and_nothing_behind_it() -> None:
    answers = anyio.Event()
    bench = Bench(Stubborn(answers=answers))
    await bench.actor.open()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await settle()
        bench.run.drain()
        await settle()
        answers.set()
    assert numbered(await drained(bench.channel)) == [(0, 0), (1, 1)]
    assert bench.run.ledger.account.read == 2 and not bench.actor.ended


def test_a_deadline_ends_a_source_that_waits_with_what_it_read_although_interrupted() -> None:
    async def body() -> None:
        answers = anyio.Event()
        bench = Bench(Stubborn(answers=answers))
        bench.actor.outlet = outlet_to(bench.run, channel_of(bench.run, batches=1))
        await bench.actor.open()
        async with anyio.create_task_group() as group:
            group.start_soon(bench.actor.run)
            await settle()
            bench.run.drain()
            await settle()
            answers.set()
            await settle()
            group.cancel_scope.cancel()
        assert bench.run.ledger.account.unsettled == 2

    within(5, body)


async def test_a_source_that_keeps_to_a_rate_waits_and_does_not_work() -> None:
    clock = ManualClock()
    pipeline = Pipeline("paced", checkpoint="none") | sources.Generate(count=21, rate="10/s") | sinks.Discard()
    report = await clock.finish(pipeline.supervisor(clock=clock).run())
    source = report.stages[0]
    assert source.busy == 0
    assert source.waiting_in == 1


class Moving(ManualClock):
    """A clock that moves by a millisecond whenever it is read: as if everything took its time."""

    def now(self) -> float:
        self._now += 0.001
        return super().now()


async def test_others_get_their_turn_while_all_is_read_and_taken_without_a_wait() -> None:
    class Prompt(Reader):
        async def read(self) -> AsyncIterator[Chunk]:
            for at in range(200):
                yield Chunk([at], at)

    class Reads(Source):
        async def open(self, context: SourceContext) -> Reader:
            return Prompt()

    bench = Bench(Reads(name="numbers"))
    bench.run.clock = Moving()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while not bench.channel.ended:
            turns += 1
            await asyncio.sleep(0)
            await drained(bench.channel)

    await bench.actor.open()
    async with anyio.create_task_group() as group:
        group.start_soon(count)
        group.start_soon(bench.actor.run)
    assert turns > 50
