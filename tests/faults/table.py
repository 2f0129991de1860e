"""The table that the suite prints: a line a row, and under it what went wrong."""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.row import Row

__all__ = ("heading", "lines_of", "write_table")

_COLUMNS = "{:<26} {:>6} {:>6} {:>9} {:>10} {:>8} {:>8} {:>7} {:>5}"
_MOST = 30
"""Failures of one row that are shown; the results have all."""


def heading() -> str:
    """Return the first line."""
    return _COLUMNS.format("row", "runs", "lost", "repeated", "reordered", "verdict", "seconds", "s/run", "seed")


def lines_of(row: Row, seed: int) -> list[str]:
    """Return the line of a row, with its notes behind it, and its failures."""
    audit = row.audit
    verdict = "pass" if row.passed else "FAIL"
    each = f"{row.seconds / row.runs:.2f}" if row.runs else "-"
    cells = (row.name, row.runs, audit.lost, audit.repeated, audit.reordered, verdict, round(row.seconds), each, seed)
    notes = dict(row.notes)
    if audit.allowed:
        notes["repeats allowed"] = audit.allowed
    told = f"{_COLUMNS.format(*cells)}   {', '.join(f'{note} {count}' for note, count in notes.items())}"
    left = [f"    and {len(row.failures) - _MOST} more"] if len(row.failures) > _MOST else []
    return [told.rstrip(), *(f"    {failure}" for failure in row.failures[:_MOST]), *left]


def write_table(path: Path, rows: Sequence[Row], seed: int, about: str) -> None:
    """Write the whole table to a file, anew, under a line that says what it is of."""
    passed = sum(row.passed for row in rows)
    told = f"{passed} of {len(rows)} rows passed, {sum(row.runs for row in rows):,} runs"
    lines = [about, told, "", heading(), *(line for row in rows for line in lines_of(row, seed))]
    path.write_text("\n".join(lines) + "\n")
