"""A stage that waits holds up everything before it, within the bounds, and nothing is lost by it."""

from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import ChannelBounds
from stages import batchers, processors, sinks, sources
from tests.end_to_end.running import Gate, exactly, numbered, numbers_in, of_stage, run_beside, standing

pytestmark = pytest.mark.anyio


async def test_a_closed_gate_stops_the_source_after_what_the_channels_hold(tmp_path: Path) -> None:
    gate, count = Gate(), 50_000
    pipeline = (
        exactly("gated", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", count))
        | processors.Map(set={"n": "n"})
        | processors.Call(gate.pass_through, batch=True, channel=ChannelBounds(records=300))
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def watch(supervisor: Supervisor) -> None:
        status = await standing(supervisor)
        assert status.account.read < count / 4
        assert all(channel.fill <= 1 for channel in status.channels)
        assert gate.came < count / 4
        gate.open()

    report = await run_beside(pipeline, watch)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(count))
    assert sum(channel.blocked_seconds for channel in report.channels) > 0


async def test_the_slowest_branch_of_a_fan_out_sets_the_pace(tmp_path: Path) -> None:
    gate, count = Gate(), 50_000
    slow = processors.Call(gate.pass_through, batch=True) | sinks.Jsonl(path=str(tmp_path / "slow.jsonl"), name="slow")
    pipeline = (
        exactly("branched", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", count))
        | batchers.Fixed(size=100)
        | [slow, sinks.Jsonl(path=str(tmp_path / "fast.jsonl"), name="fast")]
    )

    async def watch(supervisor: Supervisor) -> None:
        status = await standing(supervisor)
        assert status.account.read < count / 4
        assert status.account.settled == 0
        gate.open()

    report = await run_beside(pipeline, watch)
    assert numbers_in(tmp_path / "slow.jsonl") == numbers_in(tmp_path / "fast.jsonl") == list(range(count))
    assert report.account.written == count


async def test_unsettled_records_stop_reading_and_make_a_batcher_flush(tmp_path: Path) -> None:
    pipeline = (
        exactly("pressed", tmp_path, checkpoint={"max_unsettled": 1_000})
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", 5_000))
        | batchers.Fixed(size=100_000, linger=3600)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )
    report = await pipeline.run()
    triggers = of_stage(report.stages, "fixed").triggers
    assert triggers["pressure"] >= 2
    assert set(triggers) <= {"pressure", "end"}
    assert numbers_in(tmp_path / "out.jsonl") == list(range(5_000))


async def test_an_endless_source_reads_no_faster_than_its_sink_takes() -> None:
    gate = Gate()
    pipeline = (
        Pipeline("endless", checkpoint="none")
        | sources.Generate()
        | batchers.Fixed(size=10)
        | processors.Call(gate.pass_through, batch=True)
        | sinks.Discard()
    )

    async def watch(supervisor: Supervisor) -> None:
        status = await standing(supervisor)
        assert all(channel.fill <= 1 for channel in status.channels)
        supervisor.drain()
        gate.open()

    report = await run_beside(pipeline, watch)
    assert (report.outcome, report.account.unsettled) == ("drained", 0)
