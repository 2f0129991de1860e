"""Tier L remembers what it has done, and its mutants still fit the code that they are planted in."""

import re
from pathlib import Path
from random import Random
from threading import Event

import pytest

from pipeline.verify.audit import Audit
from tests.faults.apart import CASES, do_cases, run_apart
from tests.faults.long import long_rows, run_long
from tests.faults.mutants import MUTANTS, Mutant, planted
from tests.faults.results import Results
from tests.faults.row import Row
from tests.faults.table import lines_of, write_table
from tests.faults.tier import LongRow, Plan, Stretch


def counted(name: str, runs: int, done: list[int], broken: int = -1) -> LongRow:
    """Return a row in stretches of two, that notes which runs were done; one may find a record lost."""

    def begin(folder: Path) -> Stretch:
        folder.mkdir(parents=True)

        def work(row: Row, first: int, count: int) -> None:
            for number in range(first, first + count):
                done.append(number)
                row.check(
                    f"run {number}", Audit(lost=int(number == broken), first=f"lost {number}" * (number == broken))
                )

        return work

    return LongRow(name, runs, 2, begin)


def test_a_stretch_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    done: list[int] = []
    for runs in (3, 7):
        results = Results.read(tmp_path / "r.jsonl", 1, "code")
        list(run_long([counted("row", runs, done)], tmp_path / "dir", results, 2, 1.0))
    # The stretch from 2 on was as long as the plan had it then.
    assert done == [0, 1, 2, 4, 5, 6]
    total = Results.read(tmp_path / "r.jsonl", 1, "code").total("row")
    assert (total.runs, total.passed) == (6, True)


def test_results_of_other_code_or_another_seed_do_not_count_nor_does_a_torn_line(tmp_path: Path) -> None:
    path, done = tmp_path / "r.jsonl", list[int]()
    for seed, code in ((1, "code"), (1, "changed"), (2, "code")):
        list(run_long([counted("row", 2, done)], tmp_path / "dir", Results.read(path, seed, code), 1, 1.0))
    assert done == [0, 1] * 3
    path.write_bytes(path.read_bytes()[:-40])
    list(run_long([counted("row", 2, done)], tmp_path / "dir", Results.read(path, 2, "code"), 1, 1.0))
    assert done == [0, 1] * 4
    assert Results.read(path, 2, "code").has("row", 0)


def test_what_was_found_once_stays_found(tmp_path: Path) -> None:
    done: list[int] = []
    for _ in range(2):
        results = Results.read(tmp_path / "r.jsonl", 1, "code")
        (found,) = run_long([counted("row", 6, done, broken=3)], tmp_path / "dir", results, 1, 1.0)
        assert isinstance(found, Row)
        assert (found.passed, found.audit.lost) == (False, 1)
        assert "lost 3" in "\n".join(lines_of(found, 1))
    assert done == [0, 1, 2, 3, 4, 5]


def test_what_time_does_not_allow_is_named(tmp_path: Path) -> None:
    rows = [counted("one", 2, []), counted("other", 2, [])]
    results = Results.read(tmp_path / "r.jsonl", 1, "code")
    assert list(run_long(rows, tmp_path / "dir", results, 1, -1.0)) == ["one", "other"]


def test_a_row_that_breaks_has_failed_and_ends_no_other(tmp_path: Path) -> None:
    def begin(folder: Path) -> Stretch:
        raise OSError("no room")

    rows = [LongRow("broken", 1, 1, begin), counted("other", 2, [])]
    results = Results.read(tmp_path / "r.jsonl", 1, "code")
    broken, other = run_long(rows, tmp_path / "dir", results, 1, 1.0)
    assert isinstance(broken, Row) and not broken.passed and "no room" in broken.failures[0]
    assert isinstance(other, Row) and other.passed


def test_tier_l_has_what_was_promised() -> None:
    rows = {row.name: row.runs for row in long_rows(Plan())}
    assert len(rows) == len(long_rows(Plan()))
    assert [rows[f"kills/{name}"] for name in ("jsonl", "sqlite", "no_position")] == [500] * 3
    assert sum(runs for name, runs in rows.items() if name.startswith("power/")) == 300
    assert sum(runs for name, runs in rows.items() if name.startswith("sigterm/")) == 200
    assert sum(runs for name, runs in rows.items() if name.startswith("state-variants/")) == 300
    assert sum(runs for name, runs in rows.items() if name.startswith("second/")) == 20


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_can_still_be_planted(mutant: Mutant) -> None:
    assert planted(mutant) != planted_in(mutant)


def planted_in(mutant: Mutant) -> str:
    return (Path(__file__).parents[2] / mutant.path).read_text()


def test_a_mutant_whose_text_is_gone_says_so() -> None:
    gone = Mutant("gone", "pipeline/flow/channel.py", "no such text", "", ())
    with pytest.raises(RuntimeError, match="has its text 0 times"):
        planted(gone)


def test_repeats_are_allowed_up_to_what_was_at_risk() -> None:
    assert Audit(repeated=5, allowed=5).clean
    assert not Audit(repeated=6, allowed=5).clean
    assert "6 of 5 allowed" in str(Audit(repeated=6, allowed=5))


def test_a_row_that_waits_takes_no_place_of_the_others(tmp_path: Path) -> None:
    begun = Event()

    def begin_waiting(folder: Path) -> Stretch:
        return lambda row, _, __: row.check("waits", problem="" if begun.wait(20) else "the other never began")

    def begin_other(folder: Path) -> Stretch:
        begun.set()
        return lambda row, _, __: row.check("other")

    rows = [LongRow("waits", 1, 1, begin_waiting, waits=True), LongRow("other", 1, 1, begin_other)]
    results = Results.read(tmp_path / "r.jsonl", 1, "code")
    found = list(run_long(rows, tmp_path / "dir", results, 1, 1.0))
    assert {(row.name, row.passed) for row in found if isinstance(row, Row)} == {("other", True), ("waits", True)}


def test_every_row_of_the_plan_is_in_the_readme_and_is_there() -> None:
    named = set(re.findall(r"`([\w-]+)(?:/\*)?`", (Path(__file__).parent / "README.md").read_text()))
    groups = {row.name.split("/")[0] for row in long_rows(Plan())}
    assert groups <= named
    ids = {
        "C": (1, 2, 4, 6, 7, 9, 10, 12, 13, 15, 16),
        "P": (1, 2, *range(6, 14)),
        "I": range(1, 7),
        "Z": (1, *range(3, 10)),
    }
    table = (Path(__file__).parent / "README.md").read_text()
    assert all(re.search(rf"^\|[^|]*\b{kind}{number}\b", table, re.M) for kind in ids for number in ids[kind])


def test_the_whole_of_it_should_take_75_minutes_on_two_cores() -> None:
    assert sum(row.seconds for row in long_rows(Plan(data=Path("flights"))) if not row.waits) <= 2 * 75 * 60


def test_the_table_is_written_as_text(tmp_path: Path) -> None:
    row = Row("one", 2, seconds=3.0)
    write_table(tmp_path / "table.txt", [row], 7, "seed 7")
    text = (tmp_path / "table.txt").read_text().splitlines()
    assert text[:2] == ["seed 7", "1 of 1 rows passed, 2 runs"]
    assert text[-1].split()[:7] == ["one", "2", "0", "0", "0", "pass", "3"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_cases_of_each_row_that_is_done_in_one_process_hold(name: str, tmp_path: Path) -> None:
    row = Row(name)
    run_apart(tmp_path / "dir", row, 1, 1)
    assert row.passed and row.runs == 1, row.failures


def test_a_case_that_breaks_is_found_and_its_folder_stays(tmp_path: Path) -> None:
    def breaks(folder: Path, chance: Random) -> str:
        (folder / "left").touch()
        if folder.name.endswith("1"):
            raise ValueError("broken")
        return ""

    found = do_cases(breaks, "some", range(3), 1, tmp_path)
    assert [bool(problem) for _, problem in found["cases"]] == [False, True, False]
    assert [path.name for path in tmp_path.rglob("left")] == ["left"]
