"""Lines of text, each a record of one field."""

from collections.abc import Mapping
from typing import Any

from pipeline.stage import SourceContext
from stages.sources.files import FileSource, encoding_of
from stages.sources.formats import Decoded, Format, bad_record

__all__ = ("Lines",)


class Lines(FileSource, kw_only=True):
    """Read lines of text, each as ``{"line": text}`` without its line end; blank lines are records too."""

    def identity(self) -> Mapping[str, Any]:
        """Return the path and what decides where a record ends."""
        return {**super().identity(), "format": "lines"}

    def nonfinite(self) -> frozenset[str]:
        """Return none: all is text."""
        return frozenset()

    def format(self, context: SourceContext) -> Format:
        """Return what turns lines into records."""
        return TextLines(self.encoding)


class TextLines:
    """Decodes lines of text."""

    heads = False

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding_of(encoding)

    def begin(self, raw: bytes, last: bool) -> tuple[int, int]:
        """Return nothing: such a file has no header."""
        return 0, 0

    def decode(self, raw: bytes, last: bool) -> Decoded:
        """Decode all lines at once, or one by one when some are not of the encoding."""
        try:
            lines = raw.decode(self._encoding).split("\n")
        except UnicodeDecodeError:
            return self._one_by_one(raw)
        if not lines[-1]:
            lines.pop()
        return Decoded([{"line": line.removesuffix("\r")} for line in lines], len(raw), len(lines))

    def saved(self) -> None:
        """Return nothing."""

    def restore(self, saved: Any) -> None:
        """Do nothing."""

    def _one_by_one(self, raw: bytes) -> Decoded:
        records: list[Any] = []
        failed: list[int] = []
        for line in raw.removesuffix(b"\n").split(b"\n"):
            try:
                records.append({"line": line.decode(self._encoding).removesuffix("\r")})
            except UnicodeDecodeError as error:
                failed.append(len(records))
                records.append(bad_record(line, f"not valid {error.encoding}: {error.reason}"))
        return Decoded(records, len(raw), len(records), failed)
