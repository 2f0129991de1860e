"""The kit that we ship: its parts, and that its checks find what is broken."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import pytest

import pipeline.testing
from pipeline import Failed, Pipeline
from pipeline.batch import Batch, Origin
from pipeline.clock import Clock
from pipeline.errors import RecordErrors, StateError, StorageError
from pipeline.stage import (
    Chunk,
    Each,
    EachAsync,
    PositionWriter,
    Processor,
    Reader,
    Resume,
    Sink,
    SinkContext,
    Source,
    SourceContext,
    StageContext,
    Whole,
    Work,
    Writer,
    key,
)
from pipeline.testing import (
    CrashAt,
    Crashed,
    ListSink,
    ListSource,
    ManualClock,
    MemoryState,
    PlainListSink,
    Stored,
    Wait,
    batch_of,
    check_processor,
    check_sink,
    check_source,
    opened,
    settle,
)
from pipeline.testing.cancelling import cancel_points, interrupted

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_every_public_name_is_said_what_it_is_for() -> None:
    for name in pipeline.testing.__all__:
        assert getattr(pipeline.testing, name).__doc__


# --- the clock --------------------------------------------------------------------------------------------------------


async def test_time_stands_still_until_it_is_moved() -> None:
    clock: Clock = ManualClock(start=5, wall=1000)
    assert (clock.now(), clock.wall()) == (5, 1000)
    manual = ManualClock(start=5, wall=1000)
    await manual.advance(2.5)
    assert (manual.now(), manual.wall()) == (7.5, 1002.5)


async def test_timers_and_sleepers_go_off_in_their_order_each_at_its_moment() -> None:
    clock = ManualClock()
    seen: list[tuple[float, str]] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((clock.now(), f"slept {seconds}"))
        await clock.sleep(seconds)
        seen.append((clock.now(), f"slept again {seconds}"))

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper, 2.0)
        clock.call_at(3.0, lambda: seen.append((clock.now(), "timer")))
        clock.call_at(1.0, lambda: seen.append((clock.now(), "off")))()
        await settle()
        assert clock.waiting == 2
        await clock.advance(1.9)
        assert seen == []
        await clock.advance(10)
    assert seen == [(2, "slept 2.0"), (3, "timer"), (4, "slept again 2.0")]
    assert clock.now() == 11.9
    assert clock.waiting == 0 and clock.next_at is None


async def test_a_cancelled_sleep_leaves_no_timer() -> None:
    clock = ManualClock()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.sleep(5)
    assert clock.waiting == 0
    await clock.sleep(0)


async def test_work_is_finished_by_moving_from_timer_to_timer() -> None:
    clock = ManualClock()

    async def work() -> str:
        await clock.sleep(100)
        await clock.sleep(20)
        return "done"

    assert await clock.finish(work()) == "done"
    assert clock.now() == 120


async def test_work_that_no_timer_can_wake_is_an_error_and_so_is_work_without_end() -> None:
    clock = ManualClock()
    with pytest.raises(AssertionError, match="no timer is left"):
        await clock.finish(anyio.sleep_forever())

    async def tick() -> None:
        while True:
            await clock.sleep(1)

    with pytest.raises(AssertionError, match="has not ended within 10 seconds"):
        await clock.finish(tick(), within=10)


# --- batches, crashes, opening ----------------------------------------------------------------------------------------


def test_a_batch_of_records_is_numbered_from_where_it_is_said() -> None:
    batch = batch_of("a", "b", source="s", start=7)
    assert list(batch.origins()) == [Origin("s", 7, ""), Origin("s", 8, "")]
    assert batch.spans == [("s", 7, 9)]
    assert batch_of().spans == []


def test_a_crash_comes_at_its_chance_and_never_again() -> None:
    crash = CrashAt(2)
    crash("first")
    with pytest.raises(Crashed, match="crashed on purpose: second"):
        crash("second")
    for _ in range(5):
        crash("later")
    assert crash.happened and crash.where == "second"
    never = CrashAt(0)
    never()
    assert not never.happened
    assert issubclass(Crashed, StorageError)


async def test_a_stage_is_opened_with_what_a_first_run_would_say_and_closed_at_the_end() -> None:
    closed: list[str] = []

    class Closes(Writer):
        async def write(self, batch: Batch) -> None:
            """Take it."""

        async def close(self) -> None:
            closed.append("writer")

    class Told(Sink, kw_only=True):
        def resumes(self) -> Resume:
            return Resume.POSITION

        async def open(self, context: SinkContext) -> Writer:
            assert (context.name, context.delivery, context.position) == ("told", "exactly_once", {"length": 3})
            assert context.announce is not None and context.saved
            await context.announce([])
            return Closes()

    async with opened(Told(), position={"length": 3}) as writer:
        await writer.write(batch_of(1))
    assert closed == ["writer"]

    async def close() -> None:
        closed.append("work")

    class Stateful(Processor):
        def stateful(self) -> bool:
            return True

        async def open(self, context: StageContext) -> Work:
            assert isinstance(context.state, MemoryState)
            return Each(as_it_is, close=close)

    async with opened(Stateful()) as work:
        assert isinstance(work, Each)
    assert closed == ["writer", "work"]

    async with opened(ListSource([1, 2, 3], 2), cursor=2) as reader:
        assert [chunk.records async for chunk in reader.read()] == [[3]]


def test_state_in_memory_judges_by_smaller_numbers_and_forgets_what_a_crash_undoes() -> None:
    state = MemoryState()
    state.put("k", "s", 3, "three")
    state.put("k", "s", 1, "one")
    assert [state.get("k", "s", number) for number in (1, 2, 3, 4)] == [None, "one", "one", "three"]
    assert state.get("k", "other", 0) == "three"
    state.crash(2)
    assert state.get("k", "s", 9) == "one"


async def test_a_list_source_reads_chunks_and_stops_at_its_markers() -> None:
    clock, crash = ManualClock(), CrashAt(1)
    source = ListSource(["a", "b", Wait(5), Failed("?", "bad"), crash, "c", "d", "e"], 2)
    async with opened(source, clock=clock) as reader:
        chunks = reader.read()
        first = await anext(chunks)
        assert (first.records, first.cursor, first.position and first.position(1)) == (["a", "b"], 2, "listsource[1]")
        second = await clock.finish(anext(chunks))
        assert clock.now() == 5
        assert (list(second.failed), second.cursor) == ([0], 4)
        with pytest.raises(Crashed):
            await anext(chunks)
    async with opened(source, cursor=4) as reader:
        assert [chunk.records async for chunk in reader.read()] == [["c", "d"], ["e"]]


async def test_a_list_sink_is_cut_back_to_the_last_checkpoint(tmp_path: Path) -> None:
    stored = Stored()

    async def run(crash: CrashAt) -> None:
        state = {"path": str(tmp_path / "state.db")}
        await (Pipeline("p", checkpoint=state) | ListSource([1, 2, 3, 4], 2) | ListSink(stored, crash)).run()

    with pytest.raises(StorageError):
        await run(CrashAt(6))
    assert stored.records == [1, 2, 3]
    await run(CrashAt(0))
    assert stored.records == [1, 2, 3, 4]


async def test_a_list_sink_refuses_records_that_the_state_does_not_know() -> None:
    stored = Stored()
    stored.records.append("old")
    with pytest.raises(StateError, match="that the state does not know"):
        await ListSink(stored).open(SinkContext("out", "test", ManualClock(), "lineage", delivery="exactly_once"))
    with pytest.raises(StateError, match="expected 5 records, found 1"):
        await ListSink(stored).open(SinkContext("out", "test", ManualClock(), position={"length": 5}))


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_work_is_cancelled_at_the_await_that_was_chosen() -> None:
    steps: list[int] = []

    async def work() -> str:
        for step in range(4):
            steps.append(step)
            await asyncio.sleep(0)
        return "done"

    for at in range(1, 5):
        steps.clear()
        outcome = await interrupted(work(), at)
        assert not outcome.completed and outcome.awaits >= at
        assert max(steps) <= at
    outcome = await interrupted(work(), 5)
    assert outcome.completed and outcome.result == "done" and outcome.awaits == 4


def test_cancel_points_are_dense_first_and_then_grow() -> None:
    points = cancel_points()
    found = [next(points) for _ in range(60)]
    assert found[:40] == list(range(1, 41))
    assert found[-1] > 1000


# --- the checks find what is broken -----------------------------------------------------------------------------------


def as_it_is(record: Any) -> Any:
    return record


def nowhere(index: int) -> str:
    return ""


def nothing(record: Any) -> Any:
    return None


def a_number(record: Any) -> Any:
    return 5


def all_but_one(records: list[Any]) -> list[Any]:
    return records[1:]


class Numbers(Source, kw_only=True):
    """Counts to ten; ``fault`` is what is wrong with it."""

    fault: Annotated[str, key("What is wrong.")] = ""

    async def open(self, context: SourceContext) -> Reader:
        return NumbersReader(self.fault, context.cursor)


class NumbersReader(Reader):
    opened = 0

    def __init__(self, fault: str, cursor: Any) -> None:
        NumbersReader.opened += 1
        self.fault = fault
        self.at = (cursor or 0) + (1 if fault == "cursor" and cursor else 0)
        self.run = NumbersReader.opened

    async def read(self) -> AsyncIterator[Chunk]:
        while self.at < 10:
            low = self.at
            if self.fault != "loses what a cancel interrupts":
                await anyio.lowlevel.checkpoint()
            self.at = min(low + 3, 10)
            records: list[Any] = list(range(low, self.at))
            if self.fault == "differs":
                records[-1] += self.run
            cursor: Any = object() if self.fault == "json" else self.at
            failed = [0] if self.fault == "failed" else []
            position = nowhere if self.fault == "position" else None
            yield Chunk(records, cursor, failed=failed, position=position, size=-1 if self.fault == "size" else 3)


async def test_a_good_source_passes() -> None:
    assert await check_source(Numbers) == list(range(10))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("cursor", "read on from cursor"),
        ("differs", "opened again, it reads"),
        ("json", "must be data that JSON can hold"),
        ("failed", r"a chunk says that records \[0\] failed, and \[\] are Failed"),
        ("position", "lies nowhere"),
        ("size", "a chunk of -1 bytes"),
    ],
)
async def test_what_is_wrong_with_a_source_is_said(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await check_source(lambda: Numbers(fault=fault))


class Does(Processor, kw_only=True):
    """Does the work that a test gives it."""

    make: Annotated[Callable[[], Any], key("Makes the work.")]
    close_twice: bool = False

    async def open(self, context: StageContext) -> Work:
        work: Work = self.make()
        return work


RECORDS = [{"n": n} for n in range(5)]


def changes_first(record: dict[str, Any]) -> Any:
    record["seen"] = True
    if record["n"] == 3:
        raise ValueError("three")
    return record


def stops(record: dict[str, Any]) -> Any:
    return next(iter([])) if record["n"] == 3 else record


def by_batch(records: list[Any]) -> list[Any]:
    return [record | {"of": len(records)} for record in records]


async def leaves_a_task(record: Any) -> Any:
    TASKS.append(asyncio.ensure_future(anyio.sleep(3600)))
    await anyio.lowlevel.checkpoint()
    return record


TASKS: list[Any] = []
COUNTED: list[int] = []


def counts(record: Any) -> Any:
    COUNTED.append(1)
    return record | {"count": len(COUNTED)}


async def test_a_good_processor_passes() -> None:
    assert await check_processor(lambda: Does(make=lambda: Each(as_it_is)), RECORDS) == RECORDS


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Each(changes_first), "a record that failed was changed from"),
        (lambda: Each(stops), "raised StopIteration"),
        (lambda: Each(nothing, gives="record"), "which is not one record"),
        (lambda: Each(a_number, gives="many"), "is no sequence of records"),
        (lambda: Each(counts), "opened again, it gives"),
        (lambda: Whole(by_batch), "with batches of 3 instead of 1"),
        (lambda: Whole(all_but_one), "returned 4 results for 5 records"),
        (lambda: EachAsync(leaves_a_task), "tasks behind"),
        (lambda: Work(), "must return Each, EachAsync, Whole or Streamed, not Work"),
    ],
)
async def test_what_is_wrong_with_a_processor_is_said(make: Callable[[], Any], said: str) -> None:
    try:
        with pytest.raises(AssertionError, match=said):
            await check_processor(lambda: Does(make=make), RECORDS)
    finally:
        while TASKS:
            TASKS.pop().cancel()


class Keeps(Sink, kw_only=True):
    """Keeps records in a list; ``fault`` is what is wrong with it."""

    fault: Annotated[str, key("What is wrong.")] = ""
    records: Annotated[Any, key("What is written.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.records = [] if self.records is None else self.records

    def resumes(self) -> Resume:
        return Resume.POSITION

    async def open(self, context: SinkContext) -> Writer:
        if self.fault == "plain":
            return PlainWriter()
        if self.fault != "keeps":
            del self.records[context.position or 0 :]
        return KeepsWriter(self.records, self.fault)


class PlainWriter(Writer):
    """A writer without a position."""


class KeepsWriter(PositionWriter):
    def __init__(self, records: list[Any], fault: str) -> None:
        self.records = records
        self.fault = fault
        self.length = len(records)

    async def write(self, batch: Batch) -> None:
        bad = {index: ValueError("bad") for index, record in enumerate(batch.records) if record["id"] == 99}
        if self.fault == "changes":
            for record in batch.records:
                record["written"] = True
        if bad and self.fault == "half":
            self.records.append(batch.records[0])
        if bad and self.fault != "takes":
            raise RecordErrors({0: ValueError("bad")} if self.fault == "names" else bad)
        before = len(self.records)
        try:
            for record in reversed(batch.records) if self.fault == "order" else batch.records:
                self.records.append(record)
                await anyio.lowlevel.checkpoint()
        except BaseException:
            if self.fault != "cancel":
                del self.records[before:]
            raise
        self.length = len(self.records)

    async def prepare(self, final: bool) -> None:
        """Do nothing."""

    def position(self) -> Any:
        return object() if self.fault == "json" else self.length

    async def sync(self) -> None:
        """Do nothing."""

    async def committed(self) -> None:
        """Do nothing."""


BAD = {"id": 99, "text": ""}


async def test_a_good_sink_passes() -> None:
    await check_sink(Keeps, lambda sink: sink.records, bad=BAD)
    await check_sink(ListSink, lambda sink: sink.records)
    await check_sink(PlainListSink, lambda sink: sink.records)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("order", "after three batches were written: record 0 is"),
        ("changes", "after a write, the batch holds: record 0 is"),
        ("cancel", "was cancelled at await"),
        ("keeps", "after a crash behind the first checkpoint, and the rest again"),
        ("names", r"record 1 is bad, and RecordErrors names \[0\]"),
        ("takes", "the bad record was written"),
        ("half", "a batch with a bad record failed"),
        ("json", "a position must be data that JSON can hold"),
        ("plain", "a sink that resumes by position must open a PositionWriter"),
    ],
)
async def test_what_is_wrong_with_a_sink_is_said(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await check_sink(lambda: Keeps(fault=fault), lambda sink: sink.records, bad=BAD)
