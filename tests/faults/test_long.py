"""Tier L remembers what it has done, and its mutants still fit the code that they are planted in."""

from pathlib import Path

import pytest

from pipeline.verify.audit import Audit
from tests.faults.long import LongRow, Plan, Stretch, long_rows, run_long
from tests.faults.mutants import MUTANTS, Mutant, planted
from tests.faults.results import Results
from tests.faults.row import Row
from tests.faults.table import lines_of


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
