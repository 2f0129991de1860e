"""JSON values, one a line."""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Annotated, Any

import msgspec

from pipeline.stage import SourceContext, key
from stages.sources.files import FileSource, encoding_of
from stages.sources.formats import Decoded, Format, bad_record
from stages.sources.schema import record_type, schema_problems

__all__ = ("Jsonl",)

_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError)


class Jsonl(FileSource, kw_only=True):
    """Read JSON values, one a line; blank lines are skipped.

    A line that is no JSON value, or not of the schema, is a bad record of its own; its neighbours are untouched.
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
        """Return none: JSON has no word for them, and a number out of range is a bad record.

        But a class of the user's may have such a number as a default, or compute one.
        """
        return frozenset() if self.schema is None or isinstance(self.schema, Mapping) else None

    def format(self, context: SourceContext) -> Format:
        """Return what turns lines into records."""
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
            return Decoded(list(map(self._decode, lines)), len(raw), len(lines))
        except _REFUSALS:
            return self._one_by_one(raw)

    def saved(self) -> None:
        """Return nothing."""

    def restore(self, saved: Any) -> None:
        """Do nothing."""

    def _one_by_one(self, raw: bytes) -> Decoded:
        records: list[Any] = []
        failed: list[int] = []
        starts: list[int] = []
        lines = raw.removesuffix(b"\n").split(b"\n")
        for at, line in enumerate(lines):
            if not line.strip():
                continue
            starts.append(at)
            try:
                records.append(self._decode(line if self._encoding == "utf-8" else line.decode(self._encoding)))
            except _REFUSALS as error:
                failed.append(len(records))
                records.append(bad_record(line, _reason(error)))
        return Decoded(records, len(raw), len(lines), failed, starts)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not valid {error.encoding}: {error.reason}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        return str(error)
    return re.sub(r"^JSON is malformed: ", "not JSON: ", str(error))
