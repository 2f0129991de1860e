"""Which values a column of SQLite keeps as they are, and how values of Python become values of SQLite."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, cast
from uuid import UUID

import msgspec

from pipeline.errors import RecordError

__all__ = ("ANY", "PLAIN", "Affinity", "Column", "affinity_of", "declared_for", "fold", "keeps", "keeps_all", "to_sql")

Affinity = Literal["INTEGER", "NUMERIC", "REAL", "TEXT", "BLOB"]

PLAIN: frozenset[type] = frozenset({int, float, str, bytes, bool, type(None)})
"""Types that SQLite takes as they are."""

ANY = ""
"""The declared type of a column that keeps every value as it is."""

# Whatever looks like a number to SQLite becomes one in a column for numbers: "007" would come back as 7.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t\n\v\f\r]*", re.ASCII)

_KEPT: dict[Affinity, frozenset[type]] = {
    "INTEGER": PLAIN - {str},
    "NUMERIC": PLAIN - {str},
    "REAL": PLAIN - {str, int},
    "TEXT": PLAIN - {int, float, bool},
    "BLOB": PLAIN,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the table has it; ``key`` is its place in the primary key from 1, 0 when it is not in it."""

    name: str
    declared: str
    affinity: Affinity
    key: int = 0
    has_default: bool = False


def fold(name: str) -> str:
    """Return a name as SQLite compares names: upper and lower case of ASCII are the same."""
    return name.lower() if name.isascii() else "".join(c.lower() if c.isascii() else c for c in name)


def affinity_of(declared: str, strict: bool = False) -> Affinity:
    """Return the affinity of a column by its declared type: SQLite's own rules, in their order."""
    text = declared.upper()
    if "INT" in text:
        return "INTEGER"
    if any(word in text for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not text or "BLOB" in text or (strict and text == "ANY"):
        return "BLOB"
    return "REAL" if any(word in text for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def declared_for(values: Iterable[Sequence[Any]]) -> str:
    """Return the type to declare for a new column that is to keep these values, already values of SQLite."""
    columns = list(values)
    types = set[type]().union(*(set(map(type, column)) for column in columns)) - {type(None)}
    if types in ({int}, {bool}, {int, bool}):
        return "INTEGER"
    if types == {float} or (
        types <= {int, float, bool} and all(keeps_all("REAL", column, types) for column in columns)
    ):
        return "REAL" if types else ANY
    return "TEXT" if types == {str} else "BLOB" if types == {bytes} else ANY


def keeps_all(affinity: Affinity, values: Sequence[Any], types: set[type]) -> bool:
    """Tell whether a column of this affinity gives all of these values, of these types, back as they are."""
    return types <= _KEPT[affinity] or all(keeps(affinity, value) for value in values)


def keeps(affinity: Affinity, value: Any) -> bool:
    """Tell whether a column of this affinity gives the value back as it is; 1 and 1.0 are the same."""
    if type(value) in _KEPT[affinity]:
        return True
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is None
    return affinity == "REAL" and (abs(value) <= 2**53 or (abs(value) < 2**63 and int(float(value)) == value))


def to_sql(value: Any) -> Any:
    """Return the value as SQLite takes it: dates in ISO format, nested values as JSON text.

    :raises RecordError: when it can't be stored.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Enum):
        return to_sql(value.value)
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(cast(bytes, value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID) else _json(value)


def _json(value: Any) -> str:
    try:
        text = msgspec.json.encode(value)
        silenced = b"null" in text and _has_no_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"a {type(value).__name__} can't be stored: {error}") from None
    if silenced:
        raise RecordError("nan and infinity can't be stored as JSON")
    return text.decode()


def _has_no_json(value: Any) -> bool:
    """Find the floats that the encoder would turn into null without a word."""
    if isinstance(value, float):
        return not math.isfinite(value)
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = cast(Mapping[Any, Any], value).values()  # type: ignore[redundant-cast]  # pyright needs it
    elif isinstance(value, list | tuple | set | frozenset):
        inner = cast(Iterable[Any], value)
    elif isinstance(value, msgspec.Struct):
        inner = msgspec.structs.astuple(value)
    return any(map(_has_no_json, inner))
