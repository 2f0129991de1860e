"""Dead letters in the state file."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct, structs

from pipeline.settle.cut import Letter
from pipeline.settle.json_text import decode, encode, encode_any, printable

__all__ = (
    "LETTERS",
    "Living",
    "Outline",
    "Wanted",
    "add",
    "count",
    "drop",
    "drop_wanted",
    "forget_gone",
    "in_rows",
    "living",
    "mark_gone",
    "outlines",
    "plain",
    "rewind",
    "rows_of",
    "select",
    "take_over",
)

LETTERS = "dead letters"
"""The source that replays letters, numbered by their ids; no stage of a user's can have a name with a space."""

_FIELDS = tuple(name for name in Letter.__struct_fields__ if name not in ("id", "row"))
_ID = "coalesce(letter, id)"
_COLUMNS = ", ".join((_ID, "id", *_FIELDS))
_INSERT = f"INSERT INTO letters ({', '.join(_FIELDS)}, letter, cut) VALUES ({', '.join('?' * (len(_FIELDS) + 2))})"
_WHERE = f"""gone IS NULL AND (:stage IS NULL OR stage = :stage) AND (:since IS NULL OR at >= :since)
    AND (:until IS NULL OR at < :until) AND {_ID} > :after
    AND (:error IS NULL OR error_type = :error OR instr(error, :error) > 0)
    AND (:ids IS NULL OR {_ID} IN (SELECT value FROM json_each(:ids)))"""

_SAME = """SELECT 1 FROM letters WHERE lineage = :lineage AND source = :source AND number = :number
    AND child = :child AND stage = :stage"""

Row = tuple[Any, ...]


class Wanted(Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is None leaves all of them.

    ``error`` is the type of the error or a part of its text; ``since`` (included) and ``until`` are seconds since 1970.
    """

    stage: str | None = None
    error: str | None = None
    since: float | None = None
    until: float | None = None
    ids: Sequence[int] | None = None

    def parameters(self, after: int = 0) -> dict[str, Any]:
        """Return what the statements here are to be given."""
        ids = None if self.ids is None else encode(list(self.ids))
        return {**structs.asdict(self), "ids": ids, "after": after}


class Outline(NamedTuple):
    """What decides whether and where a letter can be replayed. ``shown``: its record is only text for people."""

    id: int
    row: int
    stage: str
    replays: int
    shown: bool
    key: str


class Living(NamedTuple):
    """The rows of all letters, ascending, and the last row that was ever given."""

    rows: list[int]
    last: int


def rows_of(letters: Iterable[Letter]) -> list[Row]:
    """Return the letters as they are saved; what they hold may change afterwards."""
    return [_row(letter) for letter in letters]


def add(connection: sqlite3.Connection, rows: Iterable[Row], cut: int) -> list[int]:
    """Save letters with a cut; return their rows, which are never given twice."""
    return [connection.execute(_INSERT, (*row, cut)).lastrowid or 0 for row in rows]


def take_over(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Save letters of another state file, but for those that are here; they belong to no cut of this one."""
    for row in rows:
        values = row[: len(_FIELDS)]
        if connection.execute(_SAME, dict(zip(_FIELDS, values, strict=True))).fetchone() is None:
            connection.execute(_INSERT, (*values, None, 0))


def select(connection: sqlite3.Connection, wanted: Wanted, limit: int, after: int = 0) -> list[Letter]:
    """Return the letters that are wanted, with ids above ``after``, by ascending id."""
    query = f"SELECT {_COLUMNS} FROM letters WHERE {_WHERE} ORDER BY {_ID} LIMIT :limit"
    return [_letter(row) for row in connection.execute(query, {**wanted.parameters(after), "limit": limit})]


def in_rows(connection: sqlite3.Connection, rows: Sequence[int]) -> list[Letter]:
    """Return the letters in these rows, by ascending row."""
    query = f"SELECT {_COLUMNS} FROM letters WHERE gone IS NULL AND id IN (SELECT value FROM json_each(?)) ORDER BY id"
    return [_letter(row) for row in connection.execute(query, (encode(list(rows)),))]


def count(connection: sqlite3.Connection, wanted: Wanted) -> int:
    """Return how many letters are wanted."""
    query = f"SELECT count(*) FROM letters WHERE {_WHERE}"
    found: int = connection.execute(query, wanted.parameters()).fetchone()[0]
    return found


def outlines(connection: sqlite3.Connection, wanted: Wanted) -> list[Outline]:
    """Return the outlines of all letters that are wanted, by ascending id."""
    query = f"SELECT {_ID}, id, stage, replays, shown, key FROM letters WHERE {_WHERE} ORDER BY {_ID}"
    rows = connection.execute(query, wanted.parameters())
    return [Outline(number, row, stage, count, bool(shown), key) for number, row, stage, count, shown, key in rows]


def living(connection: sqlite3.Connection) -> Living:
    """Return which rows are letters now."""
    rows = [row[0] for row in connection.execute("SELECT id FROM letters WHERE gone IS NULL ORDER BY id")]
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'letters'").fetchone()
    return Living(rows, last[0] if last is not None else 0)


def drop(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete letters for good; return how many there were."""
    dropped = connection.executemany(f"DELETE FROM letters WHERE gone IS NULL AND {_ID} = ?", [(each,) for each in ids])
    return max(dropped.rowcount, 0)


def drop_wanted(connection: sqlite3.Connection, wanted: Wanted) -> int:
    """Delete the letters that are wanted for good; return how many there were."""
    return connection.execute(f"DELETE FROM letters WHERE {_WHERE}", wanted.parameters()).rowcount


def mark_gone(connection: sqlite3.Connection, rows: Iterable[int], cut: int) -> None:
    """Take letters out with a cut that settles them; they stay hidden until no rewind can want them back."""
    connection.executemany("UPDATE letters SET gone = ? WHERE id = ?", [(cut, each) for each in rows])


def forget_gone(connection: sqlite3.Connection, oldest: int) -> None:
    """Delete what went with the oldest cut that is kept or before."""
    connection.execute("DELETE FROM letters WHERE gone <= ?", (oldest,))


def rewind(connection: sqlite3.Connection, cut: int) -> None:
    """Bring the letters back to how they were at a cut."""
    connection.execute("DELETE FROM letters WHERE cut > ?", (cut,))
    connection.execute("UPDATE letters SET gone = NULL WHERE gone > ?", (cut,))


def plain(letter: Letter) -> dict[str, Any]:
    """Return a letter as data that JSON can hold, its record as `Letter` says; without its id when it has none."""
    values = dict(zip(_FIELDS, _row(letter), strict=False))
    found = {name: values[name] for name in _FIELDS if name not in ("record", "metadata", "shown")}
    found |= {name: decode(values[name]) for name in ("metadata", "record")}
    found["shown"] = bool(values["shown"])
    return found if letter.id is None else {"id": letter.id, **found}


def _row(letter: Letter) -> Row:
    record, shown = encode_any(letter.record)
    values = {name: _plain(getattr(letter, name)) for name in _FIELDS if name not in ("record", "metadata", "shown")}
    values["record"] = record
    values["metadata"] = encode_any(letter.metadata)[0]
    values["shown"] = int(shown or letter.shown)
    return (*(values[name] for name in _FIELDS), letter.id)


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _letter(row: Row) -> Letter:
    values = dict(zip(("id", "row", *_FIELDS), row, strict=True))
    values["record"] = decode(values["record"])
    metadata = decode(values["metadata"])
    values["metadata"] = metadata if isinstance(metadata, dict) else {"shown": metadata}
    values["shown"] = bool(values["shown"])
    return Letter(**values)
