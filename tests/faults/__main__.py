"""Runs rows of the fault suite and prints their table: ``python -m tests.faults --rows kills power --runs 100``.

``--long`` is tier L: what is done before a release, in stretches whose results are appended to a file. Broken off, it
goes on from there. ``--mutants`` plants eight faults and shows what catches each.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.long import long_rows, run_long
from tests.faults.mutants import run_mutants
from tests.faults.results import Results, code_digest
from tests.faults.row import Row
from tests.faults.suite import Effort, names, run_rows
from tests.faults.table import heading, lines_of, write_table
from tests.faults.tier import LongRow, Plan

__all__ = ("main",)

_RESULTS = Path("faults-long.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 0 when every promise held, 1 otherwise."""
    asked = _parser().parse_args(arguments)
    folder: Path = (asked.dir or Path(tempfile.mkdtemp(prefix="faults-"))).absolute()
    if asked.mutants:
        return 0 if run_mutants(folder, asked.rows) else 1
    return _long(asked, folder) if asked.long else _brief(asked, folder)


def _brief(asked: argparse.Namespace, folder: Path) -> int:
    effort = Effort(asked.runs, asked.seed, asked.step, asked.seconds, asked.bad, asked.data, asked.first_failure)
    chosen = [name for name in names(effort) if _wanted(name, asked.rows)]
    if not chosen:
        return _no_such_row(names(effort))
    print(f"seed {asked.seed}, {asked.runs} runs a row; folders of failed runs stay in {folder}")
    print(heading(), flush=True)
    rows: list[Row] = []
    for row in run_rows(folder, effort, chosen.__contains__):
        rows.append(_printed(row, asked.seed, asked.json))
        _write(asked, rows, f"seed {asked.seed}, {asked.runs} runs a row")
    return 0 if all(row.passed for row in rows) else 1


def _long(asked: argparse.Namespace, folder: Path) -> int:
    rows = long_rows(Plan(asked.seed, asked.scale, asked.step, asked.soak_seconds, asked.data))
    chosen = [row for row in rows if _wanted(row.name, asked.rows)]
    if not chosen:
        return _no_such_row([row.name for row in rows])
    if asked.estimate:
        return _estimate(chosen, asked.jobs)
    path: Path = asked.json or _RESULTS
    # What was asked for is part of what the results are of: a tenth of the runs is not the whole tier.
    asked_for = f"{code_digest()}/{asked.scale:g}/{asked.step}/{asked.soak_seconds:g}"
    results = Results.read(path, asked.seed, asked_for)
    started = time.monotonic()
    print(f"seed {asked.seed}, code {asked_for}; results in {path}, folders of failed runs stay in {folder}")
    if asked.data is None:
        print("flights are left out: no --data, no $FLIGHTS")
    print(heading(), flush=True)
    held, left, done = True, list[str](), list[Row]()
    for found in run_long(chosen, folder, results, asked.jobs, asked.minutes):
        if isinstance(found, str):
            left.append(found)
            continue
        held = _printed(found, asked.seed).passed and held
        done.append(found)
        _write(asked, done, f"seed {asked.seed}, code {asked_for}, {asked.jobs} rows at a time")
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes, {asked.jobs} rows at a time")
    if left:
        print(f"not done in {asked.minutes:g} minutes: {', '.join(left)}; run it again to go on", file=sys.stderr)
    return 0 if held and not left else 1


def _printed(row: Row, seed: int, path: Path | None = None) -> Row:
    print("\n".join(lines_of(row, seed)), flush=True)
    if path is not None:
        with path.open("a") as lines:
            lines.write(json.dumps({**asdict(row), "passed": row.passed}) + "\n")
    return row


def _write(asked: argparse.Namespace, rows: Sequence[Row], about: str) -> None:
    if asked.table is not None:
        write_table(asked.table, rows, asked.seed, about)


def _estimate(rows: Sequence[LongRow], jobs: int) -> int:
    """Print what each row should take; those that wait take no place of the others."""
    for row in rows:
        beside = "  beside the others" if row.waits else ""
        print(f"{row.name:<26} {row.runs:>6} {row.each:>9.3f} s each {row.seconds:>6.0f} s{beside}")
    working = sum(row.seconds for row in rows if not row.waits)
    waiting = max((row.seconds for row in rows if row.waits), default=0.0)
    print(f"{max(working / jobs, waiting) / 60:.0f} minutes, {jobs} rows at a time")
    return 0


def _no_such_row(there_are: Sequence[str]) -> int:
    print(f"no such row; there are: {', '.join(there_are)} (flights needs --data)", file=sys.stderr)
    return 2


def _wanted(name: str, rows: Sequence[str]) -> bool:
    return not rows or any(name == row or name.startswith((f"{row}/", f"{row}-")) for row in rows)


def _from_environment() -> Path | None:
    return Path(os.environ["FLIGHTS"]) if os.environ.get("FLIGHTS") else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="rows or groups of them; all, if left out")
    parser.add_argument("--seed", type=int, default=1, help="decides every moment (1)")
    parser.add_argument("--step", type=int, default=1, help="take each N-th system call only (1)")
    parser.add_argument("--data", type=Path, default=_from_environment(), help="flights.csv.gz; or $FLIGHTS")
    parser.add_argument("--dir", type=Path, default=None, help="where to run; a new folder, if left out")
    parser.add_argument(
        "--json", type=Path, default=None, metavar="FILE", help="append what is found, a line of JSON each"
    )
    parser.add_argument("--table", type=Path, default=None, metavar="FILE", help="write the table to a file as well")
    brief = parser.add_argument_group("without --long")
    brief.add_argument("--runs", type=int, default=25, help="runs of each row with random moments (25)")
    brief.add_argument("--seconds", type=float, default=60.0, help="of the endless run (60)")
    brief.add_argument("--bad", type=int, default=10_000, help="bad lines, and as many good ones (10,000)")
    brief.add_argument("--first-failure", action="store_true", help="end a row at its first failure")
    long = parser.add_argument_group("tier L")
    long.add_argument("--long", action="store_true", help="do all that is done before a release")
    long.add_argument("--jobs", type=int, default=2, help="rows at a time (2)")
    long.add_argument("--minutes", type=float, default=75.0, help="begin nothing after so long (75)")
    long.add_argument("--estimate", action="store_true", help="say what each row should take, and do nothing")
    long.add_argument("--scale", type=float, default=1.0, help="share of the runs to do, to try it out (1)")
    long.add_argument("--soak-seconds", type=float, default=1200.0, help="of the soak (1200)")
    long.add_argument(
        "--mutants",
        action="store_true",
        help="plant eight faults and show what catches each (--rows: words of their names)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
