"""About how many bytes records take, from a sample: what the bounds of channels and batches count."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.projection import Projected

__all__ = ("Gauge", "estimate")

_SAMPLE = 4
_SPARED = 3
"""Lists between two that are looked into."""
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


class Gauge:
    """Estimates the bytes of lists of records that are alike: it looks into every fourth, at least."""

    __slots__ = ("_each", "_left")

    def __init__(self) -> None:
        self._each = 0.0
        self._left = 0

    def size(self, records: Sequence[Any]) -> int:
        """Return about how many bytes the records take."""
        count = len(records)
        # A short list says little of the next.
        if self._left == 0 or count < _SAMPLE:
            size = estimate(records)
            self._each = size / count if count else 0.0
            self._left = _SPARED if count >= _SAMPLE else 0
            return size
        self._left -= 1
        return int(self._each * count)


def _size(record: Any) -> int:
    if isinstance(record, Projected):
        return len(record.whole_line)
    try:
        return len(_encode(record))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return sys.getsizeof(record)
