"""JSON lines."""

import math
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from pipeline.errors import RecordError
from pipeline.stage import SinkContext
from stages.sinks.files import FileSink
from stages.sinks.format import Format, one_by_one

__all__ = ("Jsonl", "JsonlFormat")


class Jsonl(FileSink, kw_only=True):
    """Append each record to a file, one JSON value a line.

    Exactly once with a source that replays: the file is cut back to its last checkpoint when a run resumes. A record
    that JSON has no words for (NaN, infinity, half a surrogate pair, an object of an unknown type) fails by itself.
    """

    def format(self, context: SinkContext) -> Format:
        """Return how records become lines."""
        return JsonlFormat(context.nonfinite)


class JsonlFormat(Format):
    """One JSON value a line, in UTF-8. ``nonfinite`` are the fields that may hold NaN or infinity; None: any may."""

    def __init__(self, nonfinite: frozenset[str] | None = None) -> None:
        self._nonfinite = nonfinite if nonfinite is None or len(nonfinite) <= _FEW else None
        self._json = msgspec.json.Encoder()
        self._msgpack = msgspec.msgpack.Encoder()

    def encode(self, records: Sequence[Any]) -> bytes:
        """Return the lines of records. NaN and infinity, which the encoder would turn into null, are errors."""
        try:
            data = self._json.encode_lines(records)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return one_by_one(records, self._line)
        if self._has_null(data, records) and self._may_hold_nonfinite(records):
            return one_by_one(records, self._line)
        return data

    def _line(self, record: Any) -> bytes:
        line = self._json.encode(record)
        if _NULL.search(line) is not None:
            field = next(_nonfinite(msgspec.to_builtins(record, str_keys=True), ""), None)
            if field is not None:
                raise RecordError(f"{field or 'the record'} is NaN or infinite, and JSON has no number for that")
        return line + b"\n"

    def _has_null(self, data: bytes, records: Sequence[Any]) -> bool:
        """Tell whether a value that may be NaN or infinite was written as null, or is None."""
        if self._nonfinite is None:
            return _NULL.search(data) is not None
        for name in self._nonfinite:
            if _sums_up(name, records):
                continue
            try:
                values = [record.get(name) for record in records]
            except AttributeError:  # of a class of its own
                return _NULL.search(data) is not None
            # A field that some records have not got is looked for in all that was written.
            if _NULL.search(self._json.encode(values)) is not None:
                return _NULL.search(data) is not None
        return False

    def _may_hold_nonfinite(self, records: Sequence[Any]) -> bool:
        # MessagePack keeps such floats as they are: 0xcb and eight bytes whose exponent bits are all ones. Looking for
        # these costs as much as encoding once more, where a look at each value would cost ten times that.
        try:
            return _NONFINITE.search(self._msgpack.encode(records)) is not None
        except (TypeError, ValueError, OverflowError, RecursionError):
            return True


_FEW = 4
"""Fields that are looked at by themselves; to look for null in all that was written takes as long as some more."""

# Half again as fast as `in`, whose search looks at each byte for the last letter.
_NULL = re.compile(rb"null")
_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def _sums_up(name: str, records: Sequence[Any]) -> bool:
    """Tell whether a field has a finite sum, and so no value that is not a finite number; False says nothing."""
    try:
        total: Any = sum(map(itemgetter(name), records))
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return False
    return type(total) in (int, float) and total - total == 0


def _nonfinite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _nonfinite(inner, f"{path}.{name}" if path else str(name))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            yield from _nonfinite(inner, f"{path}[{index}]")
