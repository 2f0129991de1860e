"""A whole run under a clock that the test moves: how it ends, what it says, and what a crash leaves."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.batch import Batch, Many
from pipeline.chain import Chain
from pipeline.control.fixed import FixedLaw
from pipeline.errors import Exit, PipelineError, StageError, StorageError
from pipeline.flow.supervisor import Supervisor, failure_of
from pipeline.stage import Each, EachAsync, Stage, Writer
from pipeline.testing import CrashAt, ListSink, ListSource, ManualClock, PlainListSink, Stored, Wait, settle
from pipeline.watch.report import Report
from tests.flow.driving import Cuts, Works, Writes

pytestmark = pytest.mark.anyio


class Endless(ListSource):
    """A list that claims to go on for ever."""

    def endless(self) -> bool:
        return True


class Hangs(Writer):
    """Never ends a write."""

    async def write(self, batch: Batch) -> None:
        await anyio.sleep_forever()


class Scene:
    """A pipeline without a state file that runs in the background."""

    def __init__(self, *stages: Stage, **keys: Any) -> None:
        self.clock = ManualClock()
        self.events: list[str] = []
        pipeline = Pipeline("test", checkpoint="none", **keys) | Chain(stages)
        self.supervisor: Supervisor = pipeline.supervisor(
            clock=self.clock, subscribers=[lambda event, fields: self.events.append(event)]
        )
        self.reports: list[Report] = []

    async def run(self) -> Report:
        return await self.clock.finish(self.supervisor.run())

    async def during(self, *acts: Callable[[], Any] | float) -> Report:
        """Run, and meanwhile do what is to be done: call something, or let so many seconds pass."""

        async def to_the_end() -> None:
            self.reports.append(await self.supervisor.run())

        async with anyio.create_task_group() as group:
            group.start_soon(to_the_end)
            await settle()
            for act in acts:
                if callable(act):
                    act()
                    await settle()
                else:
                    await self.clock.advance(act)
            assert self.reports, f"the run has not ended: {self.supervisor.status().state}"
        return self.reports[0]


def fixed(size: int = 1000, linger: float = float("inf"), **keys: Any) -> Cuts:
    return Cuts(make=lambda: FixedLaw(size, linger), name="fixed", **keys)


async def test_a_run_to_the_end_of_its_sources_is_done() -> None:
    sink = PlainListSink()
    scene = Scene(ListSource(list(range(25))), fixed(10), sink)
    report = await scene.run()

    assert sink.records == list(range(25))
    assert (report.outcome, report.exit_code, report.error) == ("done", 0, "")
    assert report.account.as_dict() | {"read": 25, "written": 25} == report.account.as_dict()
    assert failure_of(report) is None
    assert scene.events[0] == "started" and scene.events[-1] == "finished"
    assert scene.supervisor.status().state == "finished"
    assert {stage.state for stage in report.stages} == {"stopped"}


async def test_a_finite_run_that_is_drained_is_interrupted_and_what_was_read_is_written() -> None:
    sink = PlainListSink()
    scene = Scene(ListSource([1, 2, Wait(1000), 3]), fixed(), sink)
    report = await scene.during(1.0, scene.supervisor.drain, 1.0)

    assert sink.records == [1, 2]
    assert (report.outcome, report.exit_code) == ("interrupted", 143)
    assert report.account.unsettled == 0
    assert failure_of(report) is None


async def test_an_endless_run_that_is_drained_has_ended_well() -> None:
    sink = PlainListSink()
    scene = Scene(Endless([1, 2, Wait(1000), 3]), sink)
    report = await scene.during(scene.supervisor.drain)
    assert (report.outcome, report.exit_code, sink.records) == ("drained", 0, [1, 2])


async def test_a_drain_before_the_run_reads_nothing() -> None:
    sink = PlainListSink()
    scene = Scene(ListSource([1, 2]), sink)
    scene.supervisor.drain()
    report = await scene.run()
    assert (report.outcome, sink.records, report.account.read) == ("interrupted", [], 0)


async def test_a_drain_past_its_deadline_ends_with_exit_7_and_says_what_is_left() -> None:
    scene = Scene(ListSource([1, 2, 3]), Writes(Hangs()), drain=5.0)
    report = await scene.during(scene.supervisor.drain, 4.9, lambda: None, 0.2)
    assert (report.outcome, report.exit_code) == ("late", Exit.DEADLINE)
    assert report.error == "the drain's deadline passed; 3 records are unsettled and will be read again"
    assert report.account.unsettled == 3

    sooner = Scene(ListSource([1]), Writes(Hangs()))
    assert (await sooner.during(lambda: sooner.supervisor.drain(2.0), 2.0)).exit_code == Exit.DEADLINE
    error = failure_of(report)
    assert error is not None and error.exit_code == 7 and error.report is report


async def test_the_deadline_counts_from_the_first_drain() -> None:
    scene = Scene(ListSource([1]), Writes(Hangs()))
    report = await scene.during(lambda: scene.supervisor.drain(2.0), 1.5, lambda: scene.supervisor.drain(2.0), 0.5)
    assert report.exit_code == Exit.DEADLINE


async def test_an_abort_ends_the_run_at_once() -> None:
    scene = Scene(ListSource([1, 2]), Writes(Hangs()))
    report = await scene.during(scene.supervisor.abort)
    assert (report.outcome, report.exit_code) == ("interrupted", Exit.TERMINATED)
    assert (report.account.unsettled, scene.clock.now()) == (2, 0)


async def test_a_pause_reads_no_further_until_it_is_over() -> None:
    sink = PlainListSink()
    scene = Scene(ListSource([1, Wait(1), 2, Wait(1), 3]), sink)
    report = await scene.during(
        scene.supervisor.pause, 10.0, lambda: sink.records.append("paused"), scene.supervisor.resume, 5.0
    )
    assert sink.records == [1, 2, "paused", 3]
    assert report.outcome == "done"


async def test_a_flush_sends_on_what_is_gathered() -> None:
    sink = PlainListSink()
    scene = Scene(ListSource([1, 2, Wait(5), 3]), fixed(), sink)
    report = await scene.during(scene.supervisor.flush, lambda: sink.records.append("flushed"), 5.0)
    assert sink.records == [1, 2, "flushed", 3]
    assert next(stage.triggers for stage in report.stages if stage.name == "fixed") == {"flush": 1, "end": 1}


async def test_a_record_that_fails_stops_the_run_with_stage_and_position() -> None:
    def check(record: int) -> int:
        if record == 3:
            raise ValueError("three is too many")
        return record

    sink = PlainListSink()
    report = await Scene(ListSource(list(range(10)), 2, name="numbers"), Works(Each(check), name="check"), sink).run()
    assert (report.outcome, report.exit_code) == ("stopped", 1)
    assert report.error.startswith("stage 'check' (processor ")
    assert "): numbers[3]: ValueError: three is too many (" in report.error and "test_supervisor.py:" in report.error
    assert sink.records == [0, 1, 2]
    assert report.account.written == 3
    assert isinstance(failure_of(report), PipelineError)


async def test_a_bug_of_a_stage_ends_the_run_by_name_and_the_others_with_it() -> None:
    class Broken(Writer):
        async def write(self, batch: Batch) -> None:
            raise StageError("no such table")

    report = await Scene(ListSource([1, Wait(1000), 2]), Writes(Broken(), name="out")).run()
    assert (report.outcome, report.exit_code) == ("failed", 1)
    assert report.error.startswith("stage 'out' (sink ") and report.error.endswith("no such table")


async def test_storage_that_fails_ends_the_run_with_exit_6() -> None:
    def full(record: Any) -> Any:
        raise StorageError("out.jsonl: no space")

    report = await Scene(ListSource([1]), Works(Each(full)), PlainListSink()).run()
    assert (report.exit_code, report.error) == (Exit.STORAGE, "out.jsonl: no space")


async def test_too_much_memory_stops_reading_and_makes_batchers_flush() -> None:
    sink = PlainListSink()
    report = await Scene(ListSource(list(range(50)), 5), fixed(), sink, memory=12).run()
    assert sink.records == list(range(50))
    [triggers] = [stage.triggers for stage in report.stages if stage.name == "fixed"]
    assert triggers.get("pressure", 0) >= 2
    assert max(channel.peak_records for channel in report.channels) <= 20


async def test_too_many_unsettled_records_stop_reading_and_make_batchers_flush(tmp_path: Path) -> None:
    sink = ListSink()
    state = {"path": str(tmp_path / "state.db"), "max_unsettled": 10}
    report = await (Pipeline("test", checkpoint=state) | ListSource(list(range(50)), 5) | fixed() | sink).run()
    assert sink.records == list(range(50))
    [triggers] = [stage.triggers for stage in report.stages if stage.name == "fixed"]
    assert triggers.get("pressure", 0) >= 2


async def test_a_dry_run_opens_everything_and_reads_nothing() -> None:
    sink = PlainListSink()
    pipeline = Pipeline("test") | ListSource([1, 2]) | sink
    report = await pipeline.run(dry_run=True)
    assert (report.account.read, sink.records, report.stages[0].records_in) == (0, [], 0)


async def test_a_fan_out_writes_every_record_to_every_sink_and_counts_it_once() -> None:
    left, right = PlainListSink(name="left"), PlainListSink(name="right", when="_record > 2")
    pipeline = Pipeline("test", checkpoint="none") | ListSource(list(range(6)), 2) | [left, right]
    report = await pipeline.run()
    assert (left.records, right.records) == ([0, 1, 2, 3, 4, 5], [3, 4, 5])
    assert report.account.written == 6 and report.account.unsettled == 0


# --- crashes ----------------------------------------------------------------------------------------------------------


class Noticing(CrashAt):
    """A crash point that lets others wait for a checkpoint."""

    def __init__(self, chance: int) -> None:
        super().__init__(chance)
        self.saved = anyio.Event()

    def __call__(self, where: str = "") -> None:
        if where == "after a checkpoint":
            self.saved.set()
            self.saved = anyio.Event()
        super().__call__(where)


def exploding(crash: Noticing, folder: Path, sink: ListSink) -> Pipeline:
    """Return a pipeline that makes two of each record, filters some, gathers by three and waits for two checkpoints."""

    async def work(record: int) -> Any:
        if record in (2, 5):
            await crash.saved.wait()
        return None if record == 4 else Many([record * 10, record * 10 + 1])

    state = {"path": str(folder / "state.db"), "interval": 0.001}
    source = ListSource(list(range(7)), 2, crash=crash, name="numbers")
    crashing = ListSink(sink.stored, crash, name="out")
    return Pipeline("test", checkpoint=state) | source | Works(EachAsync(work), name="twice") | fixed(3) | crashing


async def test_after_a_crash_at_any_point_every_record_is_there_once_and_in_order(tmp_path: Path) -> None:
    expected = [record * 10 + child for record in range(7) if record != 4 for child in range(2)]
    places: set[str] = set()
    for chance in count(1):
        folder = tmp_path / str(chance)
        folder.mkdir()
        crash, sink = Noticing(chance), ListSink(Stored())
        try:
            await exploding(crash, folder, sink).run()
        except StorageError:
            report = await exploding(Noticing(0), folder, sink).run()
            assert report.total.written == 6 and report.total.filtered == 1
        assert sink.records == expected, f"after a crash {crash.where}"
        places.add(crash.where)
        if not crash.happened:
            break
    assert places == {
        "",
        "before a chunk",
        "at the end of the source",
        "before a write",
        "in a write",
        "after a write",
        "before a cut",
        "before a sync",
        "after a sync",
        "after a checkpoint",
    }
