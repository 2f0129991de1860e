"""JSON values, one a line."""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from operator import itemgetter
from typing import Annotated, Any

import msgspec

from pipeline.projection import Projection, Seal
from pipeline.stage import SourceContext, key
from pipeline.widening import Widened, widener
from stages.sources.cutter import RECORDS
from stages.sources.files import FileSource, encoding_of
from stages.sources.formats import Decoded, Format, bad_record
from stages.sources.schema import reads_finite, record_type, schema_problems

__all__ = ("Jsonl",)

_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError)


class Jsonl(FileSource, kw_only=True):
    """Read JSON values, one a line; blank lines are skipped.

    A line that is no JSON value, or not of the schema, is a bad record of its own; its neighbours are untouched.

    Where only expressions look into the records on their way to a sink that writes JSON lines, fields of compact lines
    that none of them reads are not decoded: they are written as they came, also a number that Python has not got
    (1e999).
    """

    schema: Annotated[
        dict[str, str] | type[msgspec.Struct] | None,
        key("Field: type (int, float, str, bool, list, dict, any; ? behind it: may be missing), for typed records."),
    ] = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Return what is wrong with the keys."""
        yield from super().problems()
        yield from (("schema", text) for text in schema_problems(self.schema))

    def identity(self) -> Mapping[str, Any]:
        """Return the path and what decides where a record ends."""
        return {**super().identity(), "format": "jsonl"}

    def record_type(self) -> Any:
        """Return the type of the schema."""
        return record_type(self.schema)

    def nonfinite(self) -> frozenset[str] | None:
        """Return none: JSON has no word for them, and a number out of range is a bad record, or is not decoded.

        But a class of the user's may have such a number as a default, or compute one.
        """
        if self.schema is None or isinstance(self.schema, Mapping) or reads_finite(self.schema):
            return frozenset()
        return None

    def projects(self) -> bool:
        """Tell whether nobody asked for typed records; then a record is its line."""
        return self.schema is None and encoding_of(self.encoding) == "utf-8" and self._is_ours()

    def widens(self) -> bool:
        """Tell whether there is a schema."""
        return self.schema is not None and self._is_ours()

    def records_in_chunk(self) -> int:
        """Return twice as many where they are typed: they take less than half of the memory of dicts."""
        return RECORDS if self.schema is None else 2 * RECORDS

    def _is_ours(self) -> bool:
        return type(self).open is Jsonl.open and type(self).format is Jsonl.format

    def format(self, context: SourceContext) -> Format:
        """Return what turns lines into records."""
        if context.projection is not None:
            return ProjectedLines(context.projection, context.name)
        if context.widened is not None:
            return WidenedLines(self.encoding, context.widened)
        return JsonLines(self.encoding, record_type(self.schema))


class JsonLines:
    """Decodes JSON lines."""

    heads = False

    def __init__(self, encoding: str, declared: Any = Any) -> None:
        self._encoding = encoding_of(encoding)
        self._decode = msgspec.json.Decoder(declared).decode

    def begin(self, raw: bytes, last: bool) -> tuple[int, int]:
        """Return nothing: such a file has no header."""
        return 0, 0

    def decode(self, raw: bytes, last: bool) -> Decoded:
        """Decode all lines at once, or one by one when some are blank or bad."""
        # Not `decode_lines`: it takes two values on a line, and one value over several, for what they are not.
        try:
            if self._encoding == "utf-8":
                # A third of the time of `split`: it looks for newlines as memchr does.
                lines: list[Any] = BytesIO(raw).readlines()
            else:
                lines = raw.decode(self._encoding).split("\n")
                if not lines[-1]:
                    lines.pop()
            return Decoded(self.decode_all(lines), len(raw), len(lines))
        except _REFUSALS:
            return self.one_by_one(raw)

    def decode_all(self, lines: list[Any]) -> list[Any]:
        """Return the records of lines of which none is blank or bad."""
        return list(map(self._decode, lines))

    def saved(self) -> None:
        """Return nothing."""

    def restore(self, saved: Any) -> None:
        """Do nothing."""

    def decode_line(self, line: bytes) -> Any:
        """Return the record of a line."""
        return self._decode(line if self._encoding == "utf-8" else line.decode(self._encoding))

    def one_by_one(self, raw: bytes) -> Decoded:
        """Decode lines of which some are blank or bad."""
        records: list[Any] = []
        failed: list[int] = []
        starts: list[int] = []
        lines = raw.removesuffix(b"\n").split(b"\n")
        for at, line in enumerate(lines):
            if not line.strip():
                continue
            starts.append(at)
            try:
                records.append(self.decode_line(line))
            except _REFUSALS as error:
                failed.append(len(records))
                records.append(bad_record(line, _reason(error)))
        return Decoded(records, len(raw), len(lines), failed, starts)


class WidenedLines(JsonLines):
    """Decodes JSON lines as typed records with room for computed fields; a line may have a field of the same name."""

    def __init__(self, encoding: str, widened: type[Widened]) -> None:
        super().__init__(encoding, widened.__declared__)
        self._quick = msgspec.json.Decoder(widened, dec_hook=_refuse).decode
        self._widen = widener(widened)

    def decode_all(self, lines: list[Any]) -> list[Any]:
        """Return the records of lines of which none is blank or bad."""
        try:
            return list(map(self._quick, lines))
        except _REFUSALS:
            return list(map(self._widen, super().decode_all(lines)))

    def decode_line(self, line: bytes) -> Any:
        """Return the record of a line."""
        return self._widen(super().decode_line(line))


def _refuse(declared: Any, value: Any) -> Any:
    raise ValueError("not a field of the declared type")


class ProjectedLines(JsonLines):
    """Decodes of JSON lines only what a projection asks for; a line that does not fit it becomes a dict.

    Whether a line fits is told by the line alone. One with a blank behind its first colon does not: such lines are
    written without blanks, as all others are, and to take them out of a text costs as much as to decode it.
    """

    def __init__(self, projection: Projection, source: str) -> None:
        super().__init__("utf-8")
        self._project = projection.decoder()
        self._seal = Seal(projection) if projection.last == source else None

    def decode(self, raw: bytes, last: bool) -> Decoded:
        """Decode all lines at once, or one by one when one does not fit, or is blank or bad."""
        lines = BytesIO(raw).readlines()
        if lines and not lines[-1].endswith(b"\n"):
            lines[-1] += b"\n"
        # As `_behind_colon`: a call for each would cost twice as much.
        behind = {line[line.find(58) + 1 or -1] for line in lines}
        if behind <= _NOT_COMPACT:
            return super().decode(raw, last)
        return self._sealed(self.one_by_one(raw) if behind & _NOT_COMPACT else self._together(raw, lines))

    def _together(self, raw: bytes, lines: list[bytes]) -> Decoded:
        if set(map(_ENDING, lines)) == _RETURN:
            lines = [line[:-2] + b"\n" for line in lines]
        try:
            if not raw.isascii():
                raw.decode()  # what is not decoded else
            records: list[Any] = list(map(self._project, lines))
        except _REFUSALS:
            return self.one_by_one(raw)
        if set(map(_ENDING, lines)) != _BRACE:
            return self.one_by_one(raw)
        for record, line in zip(records, lines, strict=True):
            record.whole_line = line
        return Decoded(records, len(raw), len(lines))

    def decode_line(self, line: bytes) -> Any:
        """Return the record of a line, as a dict of all its fields where it does not fit."""
        ended = line.rstrip(_BLANKS) + b"\n"
        if _behind_colon(ended) in _NOT_COMPACT:
            return super().decode_line(line)
        try:
            ended.decode()
            record = self._project(ended)
        except _REFUSALS:
            return super().decode_line(line)
        record.whole_line = ended
        return record

    def _sealed(self, decoded: Decoded) -> Decoded:
        if self._seal is not None:
            decoded.records = self._seal(decoded.records)
        return decoded


def _behind_colon(line: bytes) -> int:
    """Return the byte behind the first colon; of a line without one, as an empty object is, the newline at its end."""
    return line[line.find(58) + 1 or -1]


_BLANKS = b" \t\r\n"
_NOT_COMPACT = frozenset(_BLANKS)
_ENDING = itemgetter(-2)
_BRACE = frozenset(b"}")
_RETURN = frozenset(b"\r")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not valid {error.encoding}: {error.reason}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    return re.sub(r"^JSON is malformed: ", "not JSON: ", str(error))
