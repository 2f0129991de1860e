"""Rows P of the checklist: what the system "pgqrs batch guide" promises."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.control.law import Law
from pipeline.stage import Batcher
from pipeline.testing import ListSource, ManualClock, Wait
from stages import batchers, processors, sinks
from tests.benchmarks.rivals import Guide
from tests.systems.command import ROOT, command
from tests.systems.virtual import Service, run, serve

pytestmark = pytest.mark.anyio


async def test_p6_a_whole_batch_is_worked_on_at_once_and_split_into_ok_and_failed() -> None:
    """All records of a batch are in work at the same time; those that succeed go on, those that fail are told."""
    clock = ManualClock()
    under_way = at_once = 0

    async def deliver(record: int) -> int:
        nonlocal under_way, at_once
        under_way += 1
        at_once = max(at_once, under_way)
        await clock.sleep(1.0)
        under_way -= 1
        if record % 4 == 3:
            raise ValueError(f"no address for {record}")
        return record

    pipeline = (
        Pipeline("parallel")
        | list(range(20))
        | batchers.Fixed(size=20)
        | processors.Call(deliver, concurrency=20, on_failure="collect")
        | sinks.Collect()
    )

    report = await run(pipeline, clock)

    assert at_once == 20
    assert report.seconds == pytest.approx(1.0)  # pyright: ignore[reportUnknownMemberType]
    assert report.records == [n for n in range(20) if n % 4 != 3]
    told = [each["error"].partition(" (")[0] for each in report.errors]
    assert told == [f"ValueError: no address for {n}" for n in (3, 7, 11, 15, 19)]
    assert (report.account.written, report.account.collected) == (15, 5)


@pytest.mark.parametrize(
    ("each", "smallest", "largest"), [(0.008, 100, 640), (0.05, 50, 100), (0.25, 10, 50)], ids=["8ms", "50ms", "250ms"]
)
async def test_p8_the_batcher_finds_the_size_that_the_guide_has_in_a_table(
    each: float, smallest: int, largest: int
) -> None:
    """Below 10 ms a record 100 to 500, up to 100 ms 50 to 100, above 10 to 50: found out, with a target of 5 s."""
    records = list(range(smallest * 40))

    service = await serve(records, batchers.Adaptive(target_latency=5.0, latency_of="batch"), each=each)

    settled = service.sizes[-6:-1]
    assert smallest <= min(settled) <= max(settled) <= largest, service.sizes
    assert max(call.seconds for call in service.calls) <= 5.0


class Impatient(Guide):
    """The guide's rule as its worker runs it: with whatever it finds, without waiting for more."""

    def linger(self, size: int) -> float:
        """Return zero."""
        return 0.0


class GuideRule(Batcher, kw_only=True):
    """The adaptive rule of the guide, in our engine."""

    target: float

    def law(self) -> Law:
        """Return the rule with its published constants."""
        return Impatient(self.target)


async def test_p9_more_throughput_than_the_guides_rule_where_that_is_content_with_half_the_target() -> None:
    """Where half the target lets the guide's rule stay at its first size, ours goes as far as the target allows."""
    ours, theirs = await both(list(range(12_000)), target=0.2, fixed=0.1, each=0.0005)

    assert set(theirs.sizes[:-1]) == {50}
    assert ours.calls[-1].ended < 0.75 * theirs.calls[-1].ended
    assert max(call.seconds for call in ours.calls) <= 0.2


async def test_p9_within_the_target_where_the_guides_rule_stays_over_it() -> None:
    """Where up to twice the target lets the guide's rule stay late for ever, ours keeps the target."""
    ours, theirs = await both(list(range(4_000)), target=0.2, fixed=0.01, each=0.006)

    assert min(call.seconds for call in theirs.calls[:-1]) > 0.2
    late = [call for call in ours.calls if call.seconds > 0.2]
    assert len(late) <= 0.05 * len(ours.calls)


async def test_p9_light_load_does_not_drive_the_size_up_blind() -> None:
    """Batches that were not full say nothing about larger ones: a burst after hours of little load is not late."""
    trickle = [each for n in range(40) for each in (n, n, n, Wait(1.0))]
    ours, theirs = await both([*trickle, *range(2000)], target=0.2, fixed=0.01, each=0.001)

    assert max(theirs.sizes) >= 500
    assert max(call.seconds for call in theirs.calls) > 2 * 0.2
    assert max(call.seconds for call in ours.calls) <= 0.2


async def both(records: list[Any], *, target: float, fixed: float, each: float) -> tuple[Service, Service]:
    """Return how the adaptive batcher and the guide's rule serve the same records at the same cost."""
    ours = await serve(records, batchers.Adaptive(target_latency=target, latency_of="batch"), fixed=fixed, each=each)
    theirs = await serve(records, GuideRule(target=target), fixed=fixed, each=each)
    return ours, theirs


async def test_p12_each_finished_batch_is_told_with_its_size_its_time_and_the_rate() -> None:
    """A batch that is done is an event with its size, its time, the records so far, and its records a second."""
    clock = ManualClock()
    service = Service(clock, 0.5)
    told: list[dict[str, Any]] = []
    pipeline = (
        Pipeline("monitored")
        | ListSource(records=list(range(250)), chunk=50)
        | batchers.Fixed(size=100)
        | processors.Call(service.take, batch=True)
        | sinks.Discard()
    )
    supervisor = pipeline.supervisor(
        clock=clock, subscribers=[lambda name, fields: told.append(dict(fields)) if name == "batch" else None]
    )

    report = await clock.finish(supervisor.run())

    assert [(each["size"], each["seconds"]) for each in told] == [(100, 0.5), (100, 0.5), (50, 0.5)]
    assert [(each["total"], each["rate"]) for each in told] == [(100, 200.0), (200, 200.0), (250, 100.0)]
    assert [each["stage"] for each in told] == ["fixed"] * 3
    (batcher,) = [stage for stage in report.stages if stage.role == "batcher"]
    assert (batcher.records_out, batcher.batches, batcher.last_batch) == (250, 3, 50)
    assert report.throughput == pytest.approx(250 / 1.5)  # pyright: ignore[reportUnknownMemberType]


def test_p14_the_documented_commands_run_an_etl(tmp_path: Path) -> None:
    """``init``, and what it says to type next: a small ETL, exactly once, that goes on where it ended."""
    made = command(tmp_path, "init")
    assert made.code == 0, made.err
    enter, run_it = made.out.splitlines()[-1].removeprefix("next: ").split(" && ")
    folder = tmp_path / enter.removeprefix("cd ")
    documented = run_it.split()[1:]
    assert documented[0] == "run"

    check = command(folder, "check", *documented[1:])
    first = command(folder, *documented)
    again = command(folder, *documented, "--log", "json")

    assert (check.code, first.code, again.code) == (0, 0, 0), check.err + first.err + again.err
    assert "exactly once" in check.out
    (account,) = [line for line in first.err.splitlines() if line.startswith("read ")]
    assert int(account.split()[1].replace(",", "")) >= 100
    assert again.event("finished")["read"] == 0


def test_p14_thousands_a_minute_take_few_round_trips(tmp_path: Path) -> None:
    """The quickstart config itself: a thousand flights in seconds, and no more round trips than batches."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")

    ended = command(tmp_path, "run", "configs/quickstart.yaml", "--log", "json", "--log-level", "debug")

    finished = ended.event("finished")
    assert (ended.code, finished["read"], finished["unsettled"]) == (0, 1000, 0)
    assert finished["seconds"] < 30
    sizes = [each["size"] for each in ended.events("batch")]
    assert sum(sizes) == finished["written"]
    assert len(sizes) <= 1000 / 100 + 1
