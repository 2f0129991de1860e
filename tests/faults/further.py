"""The rows of tier L beyond kills, power cuts and storage: user code, inputs, limits, attacks, old states."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tests.faults.apart import run_apart
from tests.faults.held import hold_reader, lock_sink
from tests.faults.kills import Bench
from tests.faults.misbehaving import BEHAVIOURS, STUCK, misbehave, stop_stuck, with_function
from tests.faults.older import POINTS_OF_MIGRATION, migrate_state
from tests.faults.row import Row
from tests.faults.scarce import make_scarce
from tests.faults.scenario import Scenario
from tests.faults.scenarios import SCENARIOS
from tests.faults.suite import small
from tests.faults.tier import LongRow, Plan, Stretch

__all__ = ("further_rows",)

_APART = (
    ("flaky", 500, 250, 0.03),
    ("cancels", 1_000, 250, 0.05),
    ("channel", 10_000, 5_000, 0.002),
    ("cycles", 1_000, 500, 0.06),
    ("sink-values", 400, 100, 0.1),
    ("corrupt-gzip", 200, 50, 0.35),
    ("expressions", 2_000, 2_000, 0.004),
    ("file-names", 150, 150, 0.07),
    ("rotation", 60, 10, 1.7),
)
"""Name, runs, runs of a stretch, seconds of each."""

Work = Callable[[Bench, Row, int, int, int], None]


def further_rows(plan: Plan) -> Iterator[LongRow]:
    """Yield the rows."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    jsonl, letters = by_name["jsonl"], replace(by_name["letters"], count=6_000)
    sqlite = replace(by_name["sqlite"], count=3_000)
    stuck, kinds = 3 * len(STUCK), len(BEHAVIOURS)
    yield _benched("old-state", letters, migrate_state, len(POINTS_OF_MIGRATION), 7, plan, 4.9)
    yield _benched("stuck", with_function(STUCK[0]), stop_stuck, stuck, len(STUCK), plan, 4.4, waits=True)
    yield _benched("misbehaving", with_function(BEHAVIOURS[0]), misbehave, kinds, 11, plan, 1.8)
    yield _benched("locked-sink", sqlite, lock_sink, 20, 10, plan, 2.5)
    for name in ("files_by_key", "two_sinks"):
        yield _benched(f"scarce/{name}", replace(by_name[name], count=2_000), make_scarce, 10, 10, plan, 2.3)
    yield LongRow("held-reader", 1, 1, lambda folder: _held(folder, replace(small(jsonl), count=12_000)), 25.0)
    for name, runs, size, each in _APART:
        yield LongRow(name, plan.runs(runs), size, _apart(plan), each, waits=name == "rotation")


def _benched(
    name: str, scenario: Scenario, work: Work, runs: int, size: int, plan: Plan, each: float, waits: bool = False
) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)
        return lambda row, first, count: work(bench, row, count, plan.seed, first)

    return LongRow(name, plan.runs(runs), size, begin, each, waits)


def _held(folder: Path, scenario: Scenario) -> Stretch:
    bench = Bench.set_up(scenario, folder)
    return lambda row, _, __: hold_reader(bench, row)


def _apart(plan: Plan) -> Callable[[Path], Stretch]:
    return lambda folder: lambda row, first, count: run_apart(folder, row, count, plan.seed, first)
