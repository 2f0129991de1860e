"""The metrics of a real run: named, complete, and the same numbers as its report."""

from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.testing import ManualClock
from pipeline.watch.exposition import expose
from stages import batchers, processors, sinks
from tests.watch.test_exposition import parsed

pytestmark = pytest.mark.anyio

DESIGNED = {
    "pipeline_records_total",
    "pipeline_batch_records_count",
    "pipeline_batch_seconds_count",
    "pipeline_batch_limit",
    "pipeline_channel_records",
    "pipeline_channel_blocked_seconds_total",
    "pipeline_frontier_lag_records",
    "pipeline_retries_total",
    "pipeline_dead_letters_total",
    "pipeline_loop_lag_seconds",
}


async def test_what_a_run_did_is_in_its_metrics_under_the_names_of_the_design() -> None:
    clock = ManualClock()

    async def check(record: dict[str, Any]) -> dict[str, Any] | None:
        await clock.sleep(0.001)
        if record["n"] % 10 == 3:
            raise ValueError("no")
        return None if record["n"] % 10 == 5 else record

    pipeline = (
        Pipeline("measured", on_failure="skip", metadata={"campaign": 'say "hi"', "2nd": 1})
        | [{"n": n} for n in range(1000)]
        | batchers.Adaptive(target_latency=0.1)
        | processors.Call(check, name="check")
        | sinks.Discard()
    )
    supervisor = pipeline.supervisor(clock=clock)
    report = await clock.finish(supervisor.run())
    values = parsed(expose(supervisor.measures()))
    named = {name for name, _ in values}

    assert DESIGNED <= named, DESIGNED - named
    assert all(("pipeline", "measured") in labels for _, labels in values)

    def value(name: str, **labels: str) -> float:
        return values[name, tuple(sorted({"pipeline": "measured", **labels}.items()))]

    assert value("pipeline_source_records_total", outcome="written") == report.account.written == 800
    assert value("pipeline_records_total", stage="check", outcome="skipped") == 100
    assert value("pipeline_records_total", stage="check", outcome="filtered") == 100
    assert value("pipeline_records_total", stage="discard", outcome="written") == 800
    assert value("pipeline_batch_records_sum", stage="adaptive") == 1000
    assert value("pipeline_record_seconds_count", stage="adaptive") == value("pipeline_batches_total", stage="adaptive")
    assert value("pipeline_batch_resizes_total", stage="adaptive", reason="first") == 1
    assert value("pipeline_batch_target_seconds", stage="adaptive") == 0.1
    (info,) = [dict(labels) for name, labels in values if name == "pipeline_info"]
    assert (info["campaign"], info["x2nd"]) == ('say "hi"', "1")


async def test_the_metrics_of_a_run_that_has_not_begun_can_be_asked_for() -> None:
    supervisor = (Pipeline("early") | [1] | sinks.Discard()).supervisor()
    assert parsed(expose(supervisor.measures()))["pipeline_running", (("pipeline", "early"),)] == 0
