"""Divides the rows of a table into ranges of keys. Blocking, for threads."""

import sqlite3
from collections.abc import Iterator
from typing import Any

from pipeline.stage import Partition
from stages.sqlite_connection import quoted

__all__ = ("divide_keys",)

_LOOKED_AT = 1000
"""Rows whose bytes tell how large one is."""
_AT_LEAST = 1000
"""Rows in a range: a partition costs some milliseconds of its own."""


def divide_keys(connection: sqlite3.Connection, table: str, cursor: str, size: int, after: Any) -> Iterator[Partition]:
    """Yield ranges of about ``size`` bytes behind a key, or from the first one on; the last ends with the last row."""
    column = f"{quoted(cursor)} COLLATE BINARY"
    rows = max(size // _row_size(connection, table), _AT_LEAST)
    last = connection.execute(f"SELECT {quoted(cursor)} FROM {table} ORDER BY {column} DESC LIMIT 1").fetchone()
    while last is not None and last[0] is not None and after != last[0]:
        behind = "" if after is None else f"WHERE {column} > :after"
        step = f"SELECT {quoted(cursor)} FROM {table} {behind} ORDER BY {column} LIMIT 1 OFFSET {rows - 1}"
        found = connection.execute(step, {"after": after}).fetchone()
        upto = last[0] if found is None or found[0] is None else found[0]
        name = f"{cursor} up to {upto!r}" if after is None else f"{cursor} above {after!r} up to {upto!r}"
        yield Partition(name=name, what={"after": after, "upto": upto}, size=rows)
        after = upto


def _row_size(connection: sqlite3.Connection, table: str) -> int:
    found = connection.execute(f"SELECT * FROM {table} LIMIT {_LOOKED_AT}").fetchall()
    size = sum(8 + (len(value) if isinstance(value, str | bytes) else 0) for row in found for value in row)
    return max(size // max(len(found), 1), 1)
