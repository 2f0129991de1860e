"""W4: rows go to SQLite, 500 a transaction."""

import asyncio
import sqlite3
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from pipeline import Pipeline
from stages import batchers, sinks, sources
from tests.benchmarks.contest import Answer, Goal, Peer, Task, Workload, ratio

__all__ = ("DATABASE",)

BATCH = 500
_FIELDS = ("id", "name", "amount", "at", "kind")
_MAKE = "CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, amount REAL, at INTEGER, kind TEXT)"
_INSERT = "INSERT INTO rows VALUES (?, ?, ?, ?, ?)"


def rows(records: int) -> Iterator[dict[str, Any]]:
    """Yield the rows, as dicts."""
    for n in range(records):
        yield {"id": n, "name": f"name {n % 1000}", "amount": n * 0.25, "at": 1_700_000_000 + n, "kind": "ab"[n % 2]}


def answer(folder: Path) -> Answer:
    """Return what is in the table."""
    connection = sqlite3.connect(folder / "rows.db")
    count, total = connection.execute("SELECT count(*), sum(id * 3 + at + amount) FROM rows").fetchone()
    connection.close()
    return count, str(total)


def _connected(task: Task) -> sqlite3.Connection:
    connection = sqlite3.connect(task.folder / "rows.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(_MAKE)
    return connection


def _write(connection: sqlite3.Connection, batch: list[dict[str, Any]]) -> None:
    connection.execute("BEGIN")
    connection.executemany(_INSERT, map(itemgetter(*_FIELDS), batch))
    connection.execute("COMMIT")


def _bare(task: Task) -> None:
    connection, source = _connected(task), rows(task.records)
    while batch := list(islice(source, BATCH)):
        _write(connection, batch)
    connection.close()


def _ours(task: Task, **keys: Any) -> None:
    _connected(task).close()
    pipeline = (
        Pipeline("rows", **keys)
        | sources.Iterable(rows(task.records))
        | batchers.Fixed(size=BATCH)
        | sinks.Sqlite(path=str(task.folder / "rows.db"), table="rows")
    )
    asyncio.run(pipeline.run())


def _ours_alone(task: Task) -> None:
    _ours(task, checkpoint="none")


def _ours_saved(task: Task) -> None:
    _ours(task, checkpoint={"path": str(task.folder / "state.db")})


def _streamable(task: Task) -> None:
    library: Any = import_module("streamable")
    connection = _connected(task)
    for batch in library.stream(rows(task.records)).group(BATCH):
        _write(connection, batch)
    connection.close()


def _threads(task: Task) -> None:
    """Hand each batch to a thread, as an asynchronous program would by hand."""

    async def run() -> None:
        connection, source = _connected(task), rows(task.records)
        while batch := list(islice(source, BATCH)):
            await asyncio.to_thread(_write, connection, batch)
        connection.close()

    asyncio.run(run())


DATABASE = Workload(
    "W4",
    "rows go to SQLite, 500 a transaction",
    300_000,
    [
        Peer("bare", _bare),
        Peer("ours", _ours_alone),
        Peer("ours, with checkpoints", _ours_saved),
        Peer("a thread a batch", _threads),
        Peer("streamable", _streamable, ["streamable"]),
    ],
    answer=answer,
    goals=[Goal("x bare", ratio("ours", "bare"), 0.95, 0.85)],
)
