"""A quick part of the comparison in `tests.benchmarks.adaptive`: the same goals with fewer seeds and scenarios."""

import pytest

from pipeline.control.adaptive import AdaptiveLaw
from tests.benchmarks import adaptive as benchmark
from tests.benchmarks.rivals import Aimd, DasFixedPoint, Faucet, Guide
from tests.benchmarks.scenarios import BATCH_SCENARIOS, RECORD_SCENARIOS, TARGET, Scenario

QUICK_BATCH = ("affine, noise .1", "affine, noise .3", "after b x3", "1 ms + 5 ms a record", "pause 80 ms every 2 s")
QUICK_RECORD = (
    "c = 1, 5 records/s",
    "c = 1, Poisson 10 %",
    "c = 1, on/off, peak 200 %",
    "c = 1, saturated",
    "parse, then write: saturated",
    "fan-out, fast and slow: saturated",
    "8 keys: 2500/s",
)


def pick(scenarios: tuple[Scenario, ...], names: tuple[str, ...]) -> list[Scenario]:
    return [scenario for scenario in scenarios if scenario.name in names]


def test_batches_stay_within_the_target_near_the_best_throughput() -> None:
    scenarios = pick(BATCH_SCENARIOS, QUICK_BATCH)
    rows = benchmark.batch_rows(lambda: AdaptiveLaw(TARGET, "batch"), 1, scenarios)
    assert len(rows) == len(QUICK_BATCH)
    for goal in (benchmark.steady(rows), benchmark.fast(rows)):
        assert goal.met, goal.got


def test_records_stay_within_the_target_under_every_load() -> None:
    rows = benchmark.record_rows(1, pick(RECORD_SCENARIOS, QUICK_RECORD))
    assert len(rows) == len(QUICK_RECORD)
    for goal in (benchmark.records(rows), benchmark.light(rows)):
        assert goal.met, goal.got


@pytest.mark.parametrize("name", ["G3", "G5", "G9", "G10"])
def test_starts_bursts_and_hopeless_targets(name: str) -> None:
    goal = benchmark.GOALS[name](2)
    assert goal.met, goal.got


@pytest.mark.parametrize("rule", [Aimd, DasFixedPoint, Guide, Faucet])
def test_no_published_rule_does_as_well(rule: type[Aimd | DasFixedPoint | Guide | Faucet]) -> None:
    scenarios = pick(BATCH_SCENARIOS, QUICK_BATCH[:4])
    ours = benchmark.batch_rows(lambda: AdaptiveLaw(TARGET, "batch"), 1, scenarios)
    theirs = benchmark.batch_rows(lambda: rule(TARGET), 1, scenarios)
    assert sum(row.good for row in ours) > sum(row.good for row in theirs)
    assert max(row.over for row in ours) < max(row.over for row in theirs)
