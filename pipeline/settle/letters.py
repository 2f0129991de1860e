"""Dead letters in the state file."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.settle.cut import Letter
from pipeline.settle.json_text import decode, encode_any, printable

__all__ = ("add", "count", "drop", "forget_gone", "mark_gone", "rewind", "rows_of", "select")

_FIELDS = tuple(name for name in Letter.__struct_fields__ if name != "id")
_COLUMNS = ", ".join(("id", *_FIELDS))
_INSERT = f"INSERT INTO letters ({', '.join(_FIELDS)}, cut) VALUES ({', '.join('?' * (len(_FIELDS) + 1))})"
_WHERE = """gone IS NULL AND (:stage IS NULL OR stage = :stage) AND (:since IS NULL OR at >= :since)
    AND (:until IS NULL OR at < :until) AND id > :after
    AND (:error IS NULL OR error_type = :error OR instr(error, :error) > 0)"""

Row = tuple[Any, ...]


def rows_of(letters: Iterable[Letter]) -> list[Row]:
    """Return the letters as they are saved; what they hold may change afterwards."""
    return [_row(letter) for letter in letters]


def add(connection: sqlite3.Connection, rows: Iterable[Row], cut: int) -> list[int]:
    """Save letters with a cut; return their ids."""
    return [connection.execute(_INSERT, (*row, cut)).lastrowid or 0 for row in rows]


def select(connection: sqlite3.Connection, wanted: dict[str, Any], limit: int) -> list[Letter]:
    """Return the letters that are wanted (stage, error, since, until, after an id), the oldest first."""
    query = f"SELECT {_COLUMNS} FROM letters WHERE {_WHERE} ORDER BY id LIMIT :limit"
    return [_letter(row) for row in connection.execute(query, {**wanted, "limit": limit})]


def count(connection: sqlite3.Connection, wanted: dict[str, Any]) -> int:
    """Return how many letters are wanted."""
    found: int = connection.execute(f"SELECT count(*) FROM letters WHERE {_WHERE}", wanted).fetchone()[0]
    return found


def drop(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete letters for good; return how many there were."""
    dropped = connection.executemany("DELETE FROM letters WHERE gone IS NULL AND id = ?", [(each,) for each in ids])
    return max(dropped.rowcount, 0)


def mark_gone(connection: sqlite3.Connection, ids: Iterable[int], cut: int) -> None:
    """Take letters out with a cut that settles them; they stay hidden until no rewind can want them back."""
    connection.executemany("UPDATE letters SET gone = ? WHERE id = ?", [(cut, each) for each in ids])


def forget_gone(connection: sqlite3.Connection, oldest: int) -> None:
    """Delete what went with the oldest cut that is kept or before."""
    connection.execute("DELETE FROM letters WHERE gone <= ?", (oldest,))


def rewind(connection: sqlite3.Connection, cut: int) -> None:
    """Bring the letters back to how they were at a cut."""
    connection.execute("DELETE FROM letters WHERE cut > ?", (cut,))
    connection.execute("UPDATE letters SET gone = NULL WHERE gone > ?", (cut,))


def _row(letter: Letter) -> Row:
    record, shown = encode_any(letter.record)
    values = {name: _plain(getattr(letter, name)) for name in _FIELDS if name not in ("record", "metadata", "shown")}
    values["record"] = record
    values["metadata"] = encode_any(letter.metadata)[0]
    values["shown"] = int(shown or letter.shown)
    return tuple(values[name] for name in _FIELDS)


def _plain(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _letter(row: Row) -> Letter:
    values = dict(zip(("id", *_FIELDS), row, strict=True))
    values["record"] = decode(values["record"])
    metadata = decode(values["metadata"])
    values["metadata"] = metadata if isinstance(metadata, dict) else {"shown": metadata}
    values["shown"] = bool(values["shown"])
    return Letter(**values)
