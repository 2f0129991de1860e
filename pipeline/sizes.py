"""About how many bytes records take, from a sample: what the bounds of channels and batches count."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ("estimate",)

_SAMPLE = 4
_encode = msgspec.msgpack.Encoder().encode


def estimate(records: Sequence[Any]) -> int:
    """Return the bytes of records, judged by a few of them spread over all; their encoded size, not Python's."""
    count = len(records)
    if not count:
        return 0
    step = max(1, count // _SAMPLE)
    # From the middle of each part: the first record is often unlike the others.
    sample = records[step // 2 :: step][:_SAMPLE]
    return sum(map(_size, sample)) * count // len(sample)


def _size(record: Any) -> int:
    try:
        return len(_encode(record))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return sys.getsizeof(record)
