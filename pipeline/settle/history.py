"""Runs and cuts in the state file: what was saved, how far back, and which cut is the current one."""

import hashlib
import sqlite3
from typing import Any

import msgspec

from pipeline.errors import StateError
from pipeline.settle.cut import Cut, SavedCut, SavedRun
from pipeline.settle.database import WAYS_OUT
from pipeline.settle.json_text import decode, encode

__all__ = (
    "THIN_EVERY",
    "check_notes",
    "current_cut",
    "end_run",
    "forget_cuts",
    "get",
    "list_cuts",
    "list_runs",
    "put",
    "read_cut",
    "remove",
    "save_cut",
    "start_run",
    "steady_cut",
    "thin",
)

KEPT = 50
"""The last cuts, all of them kept, and each as good to go back to as another."""
THIN_EVERY = 10
"""Older cuts are thinned at each cut whose id this divides."""
_OLDER = 3600.0
"""Seconds for which one cut a minute is kept beyond those."""
_RUNS = 1000
_ALWAYS = ("pipeline", "lineage", "run", "fingerprint", "description", "cut")
_COLUMNS = "id, lineage, run, taken_at, checksum, content"


def get(connection: sqlite3.Connection, key: str) -> Any:
    """Return what is noted under a key, None when nothing is.

    :raises StateError: when it does not match its checksum.
    """
    row = connection.execute("SELECT value, checksum FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    if _checksum(key, row[0]) != row[1]:
        raise StateError(f"the state file is corrupt ('{key}' does not match its checksum); {WAYS_OUT}")
    return decode(row[0])


def put(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Note a value under a key."""
    text = encode(value)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, _checksum(key, text)))


def remove(connection: sqlite3.Connection, *keys: str) -> None:
    """Note nothing under these keys any more."""
    connection.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in keys])


def check_notes(connection: sqlite3.Connection) -> None:
    """Refuse a file in which a key is missing: damage there must not look like a new lineage.

    :raises StateError: names the key.
    """
    found = {str(row[0]) for row in connection.execute("SELECT key FROM meta")}
    missing = [key for key in _ALWAYS if key not in found]
    if missing and found != {"pipeline"}:
        raise StateError(f"the state file is corrupt ('{missing[0]}' is missing); {WAYS_OUT}")


def save_cut(connection: sqlite3.Connection, lineage: str, run: int, cut: Cut) -> int:
    """Add a cut to the history, which makes it the current one, and return its id."""
    content = encode({name: getattr(cut, name) for name in ("sources", "sinks", "counters", "learned")})
    row = (lineage, run, cut.taken_at, _checksum(lineage, run, cut.taken_at, content), content)
    added = connection.execute(
        "INSERT INTO cuts (lineage, run, taken_at, checksum, content) VALUES (?, ?, ?, ?, ?)", row
    )
    assert added.lastrowid is not None  # SQLite always gives one after an INSERT
    put(connection, "cut", added.lastrowid)
    return added.lastrowid


def current_cut(connection: sqlite3.Connection) -> SavedCut | None:
    """Return the cut to go on from; None in a new lineage.

    :raises StateError: when it is damaged.
    """
    number = get(connection, "cut")
    return None if number is None else read_cut(connection, get(connection, "lineage"), number)


def steady_cut(connection: sqlite3.Connection, lineage: str) -> SavedCut | None:
    """Return the oldest of the last cuts that are all kept, None when there are fewer."""
    query = f"SELECT {_COLUMNS} FROM cuts WHERE lineage = ? ORDER BY id DESC LIMIT 1 OFFSET ?"
    row = connection.execute(query, (lineage, KEPT - 1)).fetchone()
    return None if row is None else _cut(row)


def read_cut(connection: sqlite3.Connection, lineage: str, number: int) -> SavedCut:
    """Return the cut of this id.

    :raises StateError: when the lineage has none.
    """
    row = connection.execute(f"SELECT {_COLUMNS} FROM cuts WHERE lineage = ? AND id = ?", (lineage, number)).fetchone()
    if row is None:
        raise StateError(f"there is no checkpoint {number} in this lineage; `state history` lists those that are kept")
    return _cut(row)


def list_cuts(connection: sqlite3.Connection, lineage: str, limit: int = -1) -> list[SavedCut]:
    """Return the cuts of a lineage that are kept, the newest first."""
    query = f"SELECT {_COLUMNS} FROM cuts WHERE lineage = ? ORDER BY id DESC LIMIT ?"
    return [_cut(row) for row in connection.execute(query, (lineage, limit))]


def thin(connection: sqlite3.Connection, lineage: str) -> int:
    """Forget old cuts but for one a minute of the last hour; return the id of the oldest that is left, 0 if none is."""
    rows: list[tuple[int, float]] = connection.execute(
        "SELECT id, taken_at FROM cuts WHERE lineage = ? ORDER BY id DESC", (lineage,)
    ).fetchall()
    if not rows:
        return 0
    kept, minutes, newest = 0, set[int](), rows[0][1]
    for place, (number, taken_at) in enumerate(rows):
        minute = int(taken_at // 60)
        if place < KEPT or (minute not in minutes and newest - taken_at <= _OLDER):
            kept = number
        else:
            connection.execute("DELETE FROM cuts WHERE id = ?", (number,))
        minutes.add(minute)
    return kept


def forget_cuts(connection: sqlite3.Connection) -> None:
    """Forget all cuts but the last of each lineage: a lineage that ended is not gone back to."""
    connection.execute("DELETE FROM cuts WHERE id NOT IN (SELECT max(id) FROM cuts GROUP BY lineage)")


def start_run(connection: sqlite3.Connection, lineage: str, run: int, at: float) -> None:
    """Note that a run begins."""
    connection.execute("INSERT INTO runs (lineage, run, started) VALUES (?, ?, ?)", (lineage, run, at))
    connection.execute("DELETE FROM runs WHERE id <= (SELECT max(id) FROM runs) - ?", (_RUNS,))


def end_run(connection: sqlite3.Connection, lineage: str, run: int, ending: SavedRun) -> None:
    """Note how a run ended."""
    row = (ending.ended, ending.outcome, ending.exit_code, encode(ending.report), lineage, run)
    connection.execute(
        "UPDATE runs SET ended = ?, outcome = ?, exit_code = ?, report = ? WHERE lineage = ? AND run = ?", row
    )


def list_runs(connection: sqlite3.Connection, limit: int = -1) -> list[SavedRun]:
    """Return the runs of all lineages, the newest first."""
    query = "SELECT lineage, run, started, ended, outcome, exit_code, report FROM runs ORDER BY id DESC LIMIT ?"
    return [
        SavedRun(
            lineage=row[0],
            run=row[1],
            started=row[2],
            ended=row[3],
            outcome=row[4],
            exit_code=row[5],
            report=None if row[6] is None else decode(row[6]),
        )
        for row in connection.execute(query, (limit,))
    ]


def _cut(row: tuple[Any, ...]) -> SavedCut:
    number, lineage, run, taken_at, checksum, content = row
    if checksum != _checksum(lineage, run, taken_at, content):
        raise StateError(f"the state file is corrupt (checkpoint {number} does not match its checksum); {WAYS_OUT}")
    saved = {"id": number, "lineage": lineage, "run": run, "taken_at": taken_at, **decode(content)}
    return msgspec.convert(saved, SavedCut)


def _checksum(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()
