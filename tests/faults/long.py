"""Tier L: how often each promise is broken before a release, in stretches that are each done once."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from tests.faults.bad_lines import mix_csv, mix_jsonl, read_mixed
from tests.faults.flights import flights
from tests.faults.full_disk import can_mount, fill_disk, limit_files
from tests.faults.further import further_rows
from tests.faults.fuzz import run_fuzz
from tests.faults.kills import Bench, kill_at_random, terminate_at_random
from tests.faults.power import cut_power_at_random, cut_power_at_syncs, shim
from tests.faults.refusals import edit_config, refuse_damage, refuse_second
from tests.faults.results import Results
from tests.faults.row import Row
from tests.faults.scenario import Scenario
from tests.faults.scenarios import SCENARIOS
from tests.faults.soak import run_soak
from tests.faults.suite import small
from tests.faults.syscalls import ERRORS, POINTS, inject_each, kill_at_each
from tests.faults.tier import LongRow, Plan, Stretch
from tests.faults.variants import COUNT, damage_state

__all__ = ("long_rows", "run_long")

_COUNT = 3_000
"""Records of a run that is killed: a run and its resumption take less than two seconds then."""
_EACH = {
    "jsonl": 1.8,
    "sqlite": 1.8,
    "no_position": 1.2,
    "gzips": 1.0,
    "explode": 1.9,
    "concurrency": 1.9,
    "from_sqlite": 1.9,
    "unordered": 2.2,
}
"""Seconds of a run that is killed and resumed, by scenario; 1.4 for others."""
_SECONDS_OF_CALLS = {"jsonl": 550.0, "sqlite": 1100.0}
_THIRD = 3
"""Of the writes of pages of a database sink, every third one is killed: a transaction has a dozen of them."""
_EVERY = {"jsonl": 2, "sqlite": 6}
"""Of the writes of pages, every so many fail."""
_BESIDE = 2
"""Rows that wait, at a time."""
_MANY = ("jsonl", "sqlite", "no_position")
_VARIANTS = ("gzips", "concurrency", "two_sinks", "explode", "dedupe", "keyed", "zstd_parts", "python")
_CUTS = (("jsonl", 100), ("sqlite", 100), ("zstd_parts", 34), ("dedupe", 33), ("two_sinks", 33))
_DRAINED = ("jsonl", "sqlite", "concurrency", "two_sinks", "explode", "dedupe", "keyed", "zstd_parts")

_SHARDS = {"pwrite64": 8, "write": 3}
"""In how many stretches the calls of a kind are killed, each n-th of them: minutes are lost at most."""


def run_long(rows: Sequence[LongRow], folder: Path, results: Results, jobs: int, minutes: float) -> Iterator[Row | str]:
    """Run the stretches that are missing, so many rows at a time; yield each row as it ends.

    Rows that wait are done beside them.

    No stretch begins after so many minutes: then the names of rows that are not done are given in place of the rows.
    """
    ends, broken_off = time.monotonic() + 60 * minutes, Event()
    ended: SimpleQueue[tuple[LongRow, Future[bool]]] = SimpleQueue()

    def over() -> bool:
        return broken_off.is_set() or time.monotonic() > ends

    with ThreadPoolExecutor(jobs) as pool, ThreadPoolExecutor(_BESIDE) as beside:
        try:
            for row in rows:
                place = folder / row.name.replace("/", "-")
                whole = (beside if row.waits else pool).submit(_run_row, row, place, results, over)
                whole.add_done_callback(partial(_tell, ended, row))
            for _ in rows:
                row, whole = ended.get()
                yield results.total(row.name) if whole.result() else row.name
        finally:
            broken_off.set()  # what is under way is finished, and nothing else is begun


def _tell(ended: "SimpleQueue[tuple[LongRow, Future[bool]]]", row: LongRow, whole: Future[bool]) -> None:
    ended.put((row, whole))


def long_rows(plan: Plan) -> list[LongRow]:
    """Return every row of tier L, those that should take longest first."""
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    rows = [LongRow("soak", 1, 1, partial(_soaked, plan=plan), plan.soak_seconds + 3, waits=True)]
    rows += [_kills(f"kills/{name}", replace(by_name[name], count=_COUNT), plan, 500) for name in _MANY]
    if plan.data is not None:
        rows += [_kills(scenario.name, scenario, plan, 50, 10) for scenario in flights(plan.data)]
    rows += [_power(replace(by_name[name], count=_COUNT), plan, cuts) for name, cuts in _CUTS]
    plain = [by_name[name] for name in ("jsonl", "sqlite")]
    for scenario in plain:
        rows += [_calls(small(scenario), plan), _errors(small(scenario), plan), _syncs(small(scenario), plan)]
    for name in _DRAINED:
        rows.append(_drains(replace(by_name[name], count=_COUNT), plan))
    for scenario in SCENARIOS:
        if scenario.name not in _MANY:
            runs = 25 if scenario.name in _VARIANTS else 10
            rows.append(_kills(f"kills/{scenario.name}", replace(scenario, count=_COUNT), plan, runs))
    for scenario in plain:
        rows += list(_storage(scenario, plan))
    rows.append(LongRow("fuzz", 1, 1, lambda folder: _fuzzed(folder, plan), plan.runs(50_000) * 0.003))
    rows.append(LongRow("bad-lines", 1, 1, lambda folder: _bad_lines(folder, plan), 22.0))
    # Where the longest come first no place is idle in the end.
    return sorted([*rows, *further_rows(plan)], key=lambda row: -row.seconds)


def _run_row(row: LongRow, folder: Path, results: Results, over: Callable[[], bool]) -> bool:
    """Return whether all of it is done."""
    missing = [(first, count) for first, count in row.stretches() if not results.has(row.name, first)]
    work: Stretch | None = None
    for first, count in missing:
        if over():
            return False
        found = Row(row.name)
        try:
            if work is None:
                shutil.rmtree(folder, ignore_errors=True)
                work = row.begin(folder)
            work(found, first, count)
        except Exception as error:  # one row that breaks is one that failed, and ends no other
            found.failures.append(f"{row.name} [{first}]: {error!r}")
        results.add(first, found)
    if results.total(row.name).passed:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _kills(name: str, scenario: Scenario, plan: Plan, runs: int, size: int = 25) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)
        return lambda row, first, count: kill_at_random(bench, row, count, plan.seed, first)

    return LongRow(name, plan.runs(runs), size, begin, _EACH.get(scenario.name, 8.3 if "flights" in name else 1.4))


def _drains(scenario: Scenario, plan: Plan) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)
        return lambda row, first, count: terminate_at_random(bench, row, count, plan.seed, first)

    return LongRow(f"sigterm/{scenario.name}", plan.runs(25), 25, begin, 2.2)


def _power(scenario: Scenario, plan: Plan, cuts: int) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)
        library = shim(folder)
        return lambda row, first, count: cut_power_at_random(bench, row, library, count, plan.seed, first)

    return LongRow(f"power/{scenario.name}", plan.runs(cuts), 20, begin, 2.2)


def _syncs(scenario: Scenario, plan: Plan) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)
        return lambda row, _, __: cut_power_at_syncs(bench, row, shim(folder), plan.step)

    return LongRow(f"power-at-syncs/{scenario.name}", 1, 1, begin, 60.0 / plan.step)


def _calls(scenario: Scenario, plan: Plan) -> LongRow:
    parts = [(call, files, part) for call, files in POINTS for part in range(_SHARDS.get(call, 1))]

    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)

        def kill(row: Row, first: int, _: int) -> None:
            call, files, part = parts[first]
            step = plan.step * (_THIRD if call == "pwrite64" and files else 1)
            kill_at_each(bench, row, call, files, step * _SHARDS.get(call, 1), 1 + part * step)

        return kill

    each = _SECONDS_OF_CALLS[scenario.name] / plan.step / len(parts)
    return LongRow(f"calls/{scenario.name}", len(parts), 1, begin, each)


def _errors(scenario: Scenario, plan: Plan) -> LongRow:
    def begin(folder: Path) -> Stretch:
        bench = Bench.set_up(scenario, folder)

        def inject(row: Row, first: int, _: int) -> None:
            injection = ERRORS[first]
            # A database makes hundreds of these calls, and what fails is always the one transaction.
            many = _EVERY[scenario.name] if injection.calls == "pwrite64" else 1
            inject_each(bench, row, injection, plan.step * many)

        return inject

    return LongRow(f"errors/{scenario.name}", len(ERRORS), 1, begin, 320.0 / plan.step / len(ERRORS))


def _storage(scenario: Scenario, plan: Plan) -> Iterator[LongRow]:
    """Yield the rows of what does not fit: damage, disks that are full, second instances."""
    brief = replace(scenario, count=_COUNT)

    def benched(scenario: Scenario, work: Callable[[Bench, Row, int, int, int], None]) -> Callable[[Path], Stretch]:
        def begin(folder: Path) -> Stretch:
            bench = Bench.set_up(scenario, folder)
            return lambda row, first, count: work(bench, row, count, plan.seed, first)

        return begin

    def refuse(bench: Bench, row: Row, runs: int, seed: int, first: int) -> None:
        refuse_damage(bench, row)
        edit_config(bench, row)

    def second(bench: Bench, row: Row, runs: int, seed: int, first: int) -> None:
        for number in range(first, first + runs):
            refuse_second(bench, row, f"second-{number}", by_link=number % 2 == 1, killed=number % 4 > 1)

    name = scenario.name
    each_damaged = benched(replace(scenario, count=6_000), damage_state)
    yield LongRow(f"state-variants/{name}", plan.runs(COUNT), 50, each_damaged, 0.9)
    yield LongRow(f"refusals/{name}", 1, 1, benched(scenario, refuse), 22.0)
    yield LongRow(f"second/{name}", plan.runs(10), 10, benched(scenario, second), 7.6)
    yield LongRow(f"short-writes/{name}", plan.runs(25), 25, benched(brief, limit_files), 2.4)
    if can_mount():
        yield LongRow(f"full-disk/{name}", plan.runs(15), 15, benched(brief, fill_disk), 2.7)


def _soaked(folder: Path, plan: Plan) -> Stretch:
    return lambda row, _, __: run_soak(folder / "run", row, plan.soak_seconds)


def _fuzzed(folder: Path, plan: Plan) -> Stretch:
    return lambda row, _, __: run_fuzz(folder, row, plan.runs(50_000), plan.seed)


def _bad_lines(folder: Path, plan: Plan) -> Stretch:
    def read(row: Row, _: int, __: int) -> None:
        for mix in (mix_jsonl, mix_csv):
            mixed = mix(plan.runs(10_000), plan.runs(10_000), plan.seed)
            read_mixed(mixed, folder / mixed.name, row, mixed.name)
            read_mixed(mixed, folder / f"{mixed.name}-killed", row, f"{mixed.name}, killed", kill_after=0.8)

    return read
