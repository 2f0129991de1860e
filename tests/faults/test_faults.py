"""Each promise, broken a few times: kills, stops, power cuts, failing storage. ``python -m tests.faults`` does more."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.bad_lines import Mixed, mix_csv, mix_jsonl, read_mixed
from tests.faults.endless import run_endless
from tests.faults.kills import Bench, kill_at_random, terminate_at_random
from tests.faults.power import cut_power_at_random, shim
from tests.faults.refusals import edit_config, refuse_damage, refuse_second
from tests.faults.row import Row
from tests.faults.scenario import Scenario
from tests.faults.scenarios import SCENARIOS
from tests.faults.suite import small
from tests.faults.syscalls import Injection, inject_error, kill_at_call
from tests.faults.workers import SHARED, VICTIMS, kill_one_of_several

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SEED = int(os.environ.get("FAULTS_SEED", "1"))
ONLY_LONG = {"adaptive", "explode_sqlite", "files_by_key", "from_sqlite", "merged", "unordered"}
"""Left to the command: the whole tier is to take less than 150 seconds."""
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def bench_of(scenario: Scenario | str, folder: Path, count: int = 3_000) -> Bench:
    if isinstance(scenario, str):
        scenario = replace(BY_NAME[scenario], count=count)
    return Bench.set_up(scenario, folder / "bench")


def held(row: Row) -> None:
    """Fail with everything that went wrong, and with the seed."""
    assert row.passed, f"seed {SEED}\n" + "\n".join(row.failures)


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - ONLY_LONG))
def test_a_run_that_is_killed_at_any_moment_ends_like_an_unbroken_one(name: str, tmp_path: Path) -> None:
    row = Row(name)
    kill_at_random(bench_of(name, tmp_path), row, 1, SEED)
    held(row)


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_worker_a_writer_or_a_coordinator_that_is_killed_changes_nothing_in_the_end(
    victim: str, tmp_path: Path
) -> None:
    row = Row(victim)
    kill_one_of_several(bench_of(SHARED, tmp_path), row, victim, 1, SEED)
    held(row)


@pytest.mark.parametrize("name", ["jsonl", "sqlite", "keyed"])
def test_a_run_that_is_asked_to_stop_does_so_in_five_seconds_and_loses_nothing(name: str, tmp_path: Path) -> None:
    row = Row(name)
    terminate_at_random(bench_of(name, tmp_path), row, 1, SEED)
    held(row)


@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("jsonl", [("write", 20), ("pwrite64", 60), ("rename", 1)]),
        ("sqlite", [("pwrite64", 200), ("unlink", 1)]),
    ],
)
def test_a_kill_at_a_write_a_sync_or_a_rename_loses_nothing(
    name: str, points: list[tuple[str, int]], tmp_path: Path
) -> None:
    row, bench = Row(name), bench_of(small(BY_NAME[name]), tmp_path)
    only = ("out.db-journal",)  # a kill while the sink's database is made leaves that behind
    killed = [kill_at_call(bench, row, call, number, only if call == "unlink" else ()) for call, number in points]
    held(row)
    assert sum(killed) >= len(killed) - 1


@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize(
    ("name", "injection", "number"),
    [
        ("jsonl", Injection("fsync,fdatasync", "EIO", onwards=True), 9),
        ("jsonl", Injection("write,writev", "ENOSPC", files=("out.jsonl",)), 10),
        ("sqlite", Injection("pwrite64", "ENOSPC", onwards=True), 100),
    ],
    ids=str,
)
def test_storage_that_fails_ends_the_run_with_6_and_loses_nothing(
    name: str, injection: Injection, number: int, tmp_path: Path
) -> None:
    row, bench = Row(name), bench_of(small(BY_NAME[name]), tmp_path)
    assert inject_error(bench, row, injection, number)
    held(row)
    assert row.notes == {f"{injection}: exit 6": 1}


@pytest.mark.needs_tool("cc")
@pytest.mark.parametrize("name", ["jsonl", "sqlite"])
def test_what_a_power_cut_leaves_on_the_disk_is_enough(name: str, tmp_path: Path) -> None:
    row, bench = Row(name), bench_of(name, tmp_path)
    cut_power_at_random(bench, row, shim(tmp_path), 1, SEED)
    held(row)
    assert row.notes["cuts"] >= 1


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("jsonl", ["state-cut-to-a-half", "source-altered-before-the-cursor", "sink-altered"]),
        ("sqlite", ["state-newer", "sink-removed"]),
    ],
)
def test_what_does_not_fit_is_refused_with_5_and_not_overwritten(name: str, damages: list[str], tmp_path: Path) -> None:
    row = Row(name)
    refuse_damage(bench_of(name, tmp_path, 6_000), row, damages.__contains__)
    held(row)
    assert row.runs == len(damages) + 1


def test_a_second_run_on_the_same_state_is_refused_with_4_and_the_holders_pid(tmp_path: Path) -> None:
    row = Row("second")
    refuse_second(bench_of("jsonl", tmp_path, 6_000), row)
    held(row)


def test_a_config_that_was_edited_goes_on_and_says_what_changed(tmp_path: Path) -> None:
    row = Row("edited")
    edit_config(bench_of("jsonl", tmp_path), row)
    held(row)


@pytest.mark.parametrize("mix", [mix_jsonl, mix_csv])
def test_ten_thousand_bad_lines_are_dead_letters_with_their_places_even_across_a_kill(
    mix: Callable[[int, int, int], Mixed], tmp_path: Path
) -> None:
    row = Row("bad lines")
    read_mixed(mix(10_000, 10_000, SEED), tmp_path / "run", row, f"seed {SEED}", kill_after=0.8)
    held(row)


def test_an_endless_source_is_held_back_by_its_sink_and_memory_stays_flat(tmp_path: Path) -> None:
    row = Row("endless")
    run_endless(tmp_path / "run", row, 5.0)
    held(row)
