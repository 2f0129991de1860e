"""How large records are in memory, roughly: what a source says of chunks that were never bytes."""

from collections.abc import Mapping, Sequence
from sys import getsizeof
from typing import Any

import msgspec

__all__ = ("rough_size",)

_FEW = 8


def rough_size(records: Sequence[Any]) -> int:
    """Return the bytes that records take, going by a few of them all over the chunk."""
    few = records[:: max(1, len(records) // _FEW)]
    return sum(map(_size, few)) * len(records) // len(few) if few else 0


def _size(record: Any) -> int:
    if isinstance(record, msgspec.Struct):
        return _size(msgspec.structs.asdict(record))
    if not isinstance(record, Mapping):
        return getsizeof(record, 64)
    return _size_of_fields(record)  # pyright: ignore[reportUnknownArgumentType]


def _size_of_fields(fields: Mapping[Any, Any]) -> int:
    return 64 + sum(getsizeof(name, 64) + getsizeof(value, 64) for name, value in fields.items())
