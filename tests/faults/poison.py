"""Values that fail only where they are written: each is a letter of its own, or is written; its neighbours are."""

import asyncio
import csv
import datetime
import decimal
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import anyio

from pipeline import Pipeline
from pipeline.settle.view import open_view
from stages import batchers, sinks

__all__ = ("poisoned",)


def _nested() -> list[Any]:
    """Return a list in lists, deeper than Python's stack."""
    nested: list[Any] = []
    for _ in range(3_000):
        nested = [nested]
    return nested


def _round() -> dict[str, Any]:
    """Return a record that holds itself."""
    record: dict[str, Any] = {}
    record["itself"] = record
    return record


VALUES: tuple[Any, ...] = (
    "\ud800",
    "a\udfffb",
    "nul \0 inside",
    "line\nbreak",
    "return\r",
    "\u2028",
    "x" * 2_000_000,
    "",
    2**63,
    2**63 - 1,
    -(2**63) - 1,
    2**64,
    10**400,
    float("nan"),
    float("inf"),
    float("-inf"),
    -0.0,
    5e-324,
    1e308,
    b"\xff\x00bytes",
    bytearray(b"more"),
    memoryview(b"view"),
    decimal.Decimal("1.10"),
    decimal.Decimal("NaN"),
    datetime.datetime(2026, 1, 1),
    datetime.timedelta(days=1),
    uuid.UUID(int=7),
    _nested(),
    _round(),
    {1: "key"},
    {(1, 2): "key"},
    {"\ud800": 1},
    {"nested": {"deep": float("nan")}},
    [1, "\ud800"],
    {1, 2},
    frozenset({1}),
    1 + 2j,
    object(),
    lambda: 0,
    int,
    range(3),
    ...,
    NotImplemented,
    Exception("an error"),
)
"""What may be in a record that came from Python, and what some sink can't hold or reads as something else."""


def poisoned(folder: Path, chance: Random) -> str:
    """Write records of which some hold such a value, to each sink in its turn by chance."""
    count, size = chance.randrange(2, 120), chance.choice([1, 7, 50, 500])
    bad = {chance.randrange(count): chance.choice(VALUES) for _ in range(chance.randint(1, 4))}
    name = chance.choice(sorted(_SINKS))
    make, read = _SINKS[name]
    records = [{"n": n, "v": bad.get(n, "plain")} for n in range(count)]
    recipe = (
        Pipeline("poisoned", checkpoint={"path": str(folder / "state.db")}, on_failure="dead_letter")
        | (record for record in records)
        | batchers.Fixed(size=size)
        | make(folder)
    )
    report = asyncio.run(recipe.run())
    written, letters = list(read(folder)), anyio.run(_letters, folder)
    good = [n for n in range(count) if n not in bad]
    checks = {
        f"ended {report.outcome}: {report.error}": report.outcome == "done",
        "good records are lost, repeated or out of order": [n for n in written if n not in bad] == good,
        f"{sorted(bad)} are not each written or a letter: {letters}": sorted([*written, *letters])
        == list(range(count)),
        f"the account does not add up: {report.account}": report.account.written == len(written)
        and report.account.dead_lettered == len(letters),
    }
    problems = [text for text, fine in checks.items() if not fine]
    return f"{name}, {len(bad)} of {count}, batches of {size}: {'; '.join(problems)}" if problems else ""


async def _letters(folder: Path) -> list[int]:
    async with open_view(folder / "state.db") as view:
        return [int(letter.position.rpartition("[")[2].rstrip("]").split()[-1]) for letter in await view.letters()]


def _jsonl(folder: Path) -> Iterable[int]:
    return [json.loads(line)["n"] for line in (folder / "out.jsonl").read_bytes().split(b"\n")[:-1]]


def _csv(folder: Path) -> Iterable[int]:
    csv.field_size_limit(2**24)
    with (folder / "out.csv").open(newline="") as text:
        return [int(row["n"]) for row in csv.DictReader(text)]


def _rows(folder: Path) -> Iterable[int]:
    with closing(sqlite3.connect(folder / "out.db")) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY rowid")]


_SINKS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Iterable[int]]]] = {
    "jsonl": (lambda folder: sinks.Jsonl(path=str(folder / "out.jsonl")), _jsonl),
    "csv": (lambda folder: sinks.Csv(path=str(folder / "out.csv"), columns=["n", "v"]), _csv),
    "sqlite": (lambda folder: sinks.Sqlite(path=str(folder / "out.db"), table="t"), _rows),
}
