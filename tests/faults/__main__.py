"""Runs rows of the fault suite and prints their table: ``python -m tests.faults --rows kills power --runs 100``."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.row import Row
from tests.faults.suite import Effort, names, run_rows

__all__ = ("main",)

_COLUMNS = "{:<24} {:>6} {:>6} {:>9} {:>10} {:>8} {:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 0 when every promise held, 1 otherwise."""
    asked = _parser().parse_args(arguments)
    folder: Path = asked.dir or Path(tempfile.mkdtemp(prefix="faults-"))
    effort = Effort(asked.runs, asked.seed, asked.step, asked.seconds, asked.bad, asked.data)
    chosen = [name for name in names(effort) if _wanted(name, asked.rows)]
    if not chosen:
        print(f"no such row; there are: {', '.join(names(effort))} (flights needs --data)", file=sys.stderr)
        return 2
    print(f"seed {asked.seed}, {asked.runs} runs a row; folders of failed runs stay in {folder}")
    print(_COLUMNS.format("row", "runs", "lost", "repeated", "reordered", "verdict", "seconds"), flush=True)
    rows = [_printed(row, asked.json) for row in run_rows(folder, effort, chosen.__contains__)]
    return 0 if all(row.passed for row in rows) else 1


def _printed(row: Row, path: Path | None) -> Row:
    audit = row.audit
    verdict = "pass" if row.passed else "FAIL"
    cells = (row.name, row.runs, audit.lost, audit.repeated, audit.reordered, verdict, round(row.seconds))
    print(_COLUMNS.format(*cells), " ", ", ".join(f"{note} {count}" for note, count in row.notes.items()))
    for failure in row.failures:
        print(f"    {failure}")
    sys.stdout.flush()
    if path is not None:
        with path.open("a") as lines:
            lines.write(json.dumps({**asdict(row), "passed": row.passed}) + "\n")
    return row


def _wanted(name: str, rows: Sequence[str]) -> bool:
    return not rows or any(name == row or name.startswith((f"{row}/", f"{row}-")) for row in rows)


def _from_environment() -> Path | None:
    return Path(os.environ["FLIGHTS"]) if os.environ.get("FLIGHTS") else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="rows or groups of them; all, if left out")
    parser.add_argument("--runs", type=int, default=25, help="runs of each row with random moments (25)")
    parser.add_argument("--seed", type=int, default=1, help="decides every moment (1)")
    parser.add_argument("--step", type=int, default=1, help="take each N-th system call only (1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the endless run (60)")
    parser.add_argument("--bad", type=int, default=10_000, help="bad lines, and as many good ones (10,000)")
    parser.add_argument("--data", type=Path, default=_from_environment(), help="flights.csv.gz; or $FLIGHTS")
    parser.add_argument("--dir", type=Path, default=None, help="where to run; a new folder, if left out")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="append each row as a line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
