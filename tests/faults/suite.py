"""Every row of the suite by name, and how it is run."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.bad_lines import mix_csv, mix_jsonl, read_mixed
from tests.faults.endless import run_endless
from tests.faults.flights import flights
from tests.faults.kills import Bench, kill_at_random, terminate_at_random
from tests.faults.power import cut_power_at_random, cut_power_at_syncs, shim
from tests.faults.refusals import edit_config, refuse_damage, refuse_second
from tests.faults.row import Row
from tests.faults.scenario import Scenario
from tests.faults.scenarios import SCENARIOS
from tests.faults.syscalls import inject_errors, kill_at_calls
from tests.faults.workers import FORKED, SHARED, VICTIMS, kill_one_of_several

__all__ = ("Effort", "names", "run_rows", "small")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: runs of each random row, seconds of the endless one; each ``step``-th system call.

    ``data`` is the file of flights, without which those rows are left out.
    """

    runs: int = 25
    seed: int = 1
    step: int = 1
    seconds: float = 60.0
    bad: int = 10_000
    data: Path | None = None
    ends_early: bool = False


Work = Callable[[Row, Path, Effort], None]


def names(effort: Effort) -> list[str]:
    """Return the names of all rows."""
    return [name for name, _ in _rows(effort)]


def run_rows(folder: Path, effort: Effort, wanted: Callable[[str], bool]) -> Iterator[Row]:
    """Run the rows whose names are wanted, one after the other, each in a folder of its own."""
    for name, work in _rows(effort):
        if wanted(name):
            row = Row(name, ends_early=effort.ends_early)
            try:
                work(row, folder / name.replace("/", "-"), effort)
            except RuntimeError as error:
                row.failures.append(f"{name}: {error}")
            if row.passed:
                shutil.rmtree(folder / name.replace("/", "-"))
            yield row


def small(scenario: Scenario) -> Scenario:
    """Return a scenario of 2,000 records with more checkpoints in them, for faults at each system call."""
    config = scenario.config.replace("50ms", "20ms").replace("size: 100", "size: 50")
    return replace(scenario, count=2_000, config=config)


def _rows(effort: Effort) -> Iterator[tuple[str, Work]]:
    for scenario in SCENARIOS:
        yield (
            f"kills/{scenario.name}",
            _of(scenario, lambda bench, row, at: kill_at_random(bench, row, at.runs, at.seed)),
        )
    for scenario in flights(effort.data) if effort.data is not None else ():
        yield scenario.name, _of(scenario, lambda bench, row, at: kill_at_random(bench, row, at.runs, at.seed))
    for scenario in SCENARIOS:
        if not scenario.script:  # what a program does at a signal is its own affair
            work = _of(scenario, lambda bench, row, at: terminate_at_random(bench, row, at.runs, at.seed))
            yield f"sigterm/{scenario.name}", work
    plain = [scenario for scenario in SCENARIOS if scenario.name in ("jsonl", "sqlite")]
    for scenario in plain:
        yield (
            f"calls/{scenario.name}",
            _of(small(scenario), lambda bench, row, at: kill_at_calls(bench, row, step=at.step)),
        )
    for scenario in plain:
        yield (
            f"errors/{scenario.name}",
            _of(small(scenario), lambda bench, row, at: inject_errors(bench, row, step=at.step)),
        )
    for scenario in (*plain, *(each for each in SCENARIOS if each.name in ("zstd_parts", "dedupe", "two_sinks"))):
        yield f"power/{scenario.name}", _of(scenario, _cut_power)
    for scenario in plain:
        yield f"refusals/{scenario.name}", _of(scenario, _refuse)
        yield f"second/{scenario.name}", _of(scenario, _second)
        yield f"power-at-syncs/{scenario.name}", _of(small(scenario), _cut_at_syncs)
    for victim in VICTIMS:
        yield f"workers/{victim}", _of(SHARED, _killing(victim))
        yield f"forks/{victim}", _of(FORKED, _killing(victim))
    yield "bad-lines", _bad_lines
    yield "endless", lambda row, folder, at: run_endless(folder, row, at.seconds)


def _of(scenario: Scenario, work: Callable[[Bench, Row, Effort], None]) -> Work:
    def on_bench(row: Row, folder: Path, effort: Effort) -> None:
        work(Bench.set_up(scenario, folder), row, effort)

    return on_bench


def _killing(victim: str) -> Callable[[Bench, Row, Effort], None]:
    return lambda bench, row, at: kill_one_of_several(bench, row, victim, at.runs, at.seed)


def _cut_power(bench: Bench, row: Row, effort: Effort) -> None:
    cut_power_at_random(bench, row, shim(bench.folder), effort.runs, effort.seed)


def _cut_at_syncs(bench: Bench, row: Row, effort: Effort) -> None:
    cut_power_at_syncs(bench, row, shim(bench.folder), effort.step)


def _refuse(bench: Bench, row: Row, effort: Effort) -> None:
    refuse_damage(bench, row)


def _second(bench: Bench, row: Row, effort: Effort) -> None:
    refuse_second(bench, row)
    edit_config(bench, row)


def _bad_lines(row: Row, folder: Path, effort: Effort) -> None:
    for mix in (mix_jsonl, mix_csv):
        mixed = mix(effort.bad, effort.bad, effort.seed)
        read_mixed(mixed, folder / mixed.name, row, mixed.name)
        read_mixed(mixed, folder / f"{mixed.name}-killed", row, f"{mixed.name}, killed", kill_after=0.8)
