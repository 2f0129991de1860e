"""JSON lines."""

import re
from collections.abc import Sequence
from operator import attrgetter, itemgetter
from os import fspath
from typing import Any

import msgspec

from pipeline.errors import RecordError
from pipeline.finite import nonfinite_in, sums_up
from pipeline.stage import SinkContext
from stages.sinks.files import FileSink
from stages.sinks.format import Format, one_by_one
from stages.sinks.templates import Template

__all__ = ("Jsonl", "JsonlFormat")


class Jsonl(FileSink, kw_only=True):
    """Append each record to a file, one JSON value a line.

    Exactly once with a source that replays: the file is cut back to its last checkpoint when a run resumes. A record
    that JSON has no words for (NaN, infinity, half a surrogate pair, an object of an unknown type) fails by itself.
    """

    def takes_text(self) -> bool:
        """Tell whether its path asks for no field."""
        own = type(self).open is Jsonl.open and type(self).format is Jsonl.format
        return own and not Template(fspath(self.path)).fields

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
        if records and type(records[0]) is msgspec.Raw and set(map(type, records)) == {msgspec.Raw}:
            return b"\n".join(records) + b"\n"
        try:
            data = self._json.encode_lines(records)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return one_by_one(records, self._line)
        if self._has_null(data, records) and self._may_hold_nonfinite(records):
            return one_by_one(records, self._line)
        return data

    def _line(self, record: Any) -> bytes:
        line = self._json.encode(record)
        if type(record) is not msgspec.Raw and _NULL.search(line) is not None:
            field = next(nonfinite_in(msgspec.to_builtins(record, str_keys=True)), None)
            if field is not None:
                raise RecordError(f"{field or 'the record'} is NaN or infinite, and JSON has no number for that")
        return line + b"\n"

    def _has_null(self, data: bytes, records: Sequence[Any]) -> bool:
        """Tell whether a value that may be NaN or infinite was written as null, or is None."""
        if self._nonfinite is None:
            return _NULL.search(data) is not None
        typed = bool(records) and isinstance(records[0], msgspec.Struct)
        for name in self._nonfinite:
            if sums_up(map(attrgetter(name) if typed else itemgetter(name), records)):
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
