"""Who may change a record: shallow copies where a record has, or may have, a second owner."""

import copy
from typing import Any

import msgspec

__all__ = ("copy_record", "copy_records")

_UNCHANGEABLE = frozenset({int, float, str, bytes, bool, tuple, frozenset, type(None), msgspec.Raw})


def copy_records(records: list[Any]) -> list[Any]:
    """Return shallow copies, one a record; records that can't change are themselves."""
    types = set(map(type, records))
    if types == {dict}:
        return [record.copy() for record in records]
    if types <= _UNCHANGEABLE:
        return list(records)
    return list(map(copy_record, records))


def copy_record(record: Any) -> Any:
    """Return a shallow copy of one record."""
    return record if type(record) in _UNCHANGEABLE else copy.copy(record)
