"""What a format makes of lines: records, bad records, and where each of them lies."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

from pipeline.batch import Failed
from pipeline.errors import RecordError

__all__ = ("Decoded", "Format", "Place", "bad_record", "split_lines")

SHOWN = 1024
"""Bytes of a bad line that are kept to be looked at."""


class Decoded:
    """What a run of lines holds.

    ``failed`` are the indexes of records that are bad. ``starts`` is the index of each record's first line, None where
    record i is line i. ``used`` bytes in ``lines`` lines are decoded; the rest belongs to an incomplete record.
    """

    __slots__ = ("failed", "lines", "records", "starts", "used")

    def __init__(
        self,
        records: list[Any],
        used: int,
        lines: int,
        failed: Sequence[int] = (),
        starts: Sequence[int] | None = None,
    ) -> None:
        self.records = records
        self.used = used
        self.lines = lines
        self.failed = failed
        self.starts = starts


class Format(Protocol):
    """Turns the lines of a file into records. Has state for one file at a time: its header, if it ``heads``."""

    heads: bool

    def begin(self, raw: bytes, last: bool) -> tuple[int, int] | None:
        """Read what a file begins with and return how many bytes and lines that is; None asks for more lines.

        :raises ValueError: when that is not as it should be.
        """
        ...

    def decode(self, raw: bytes, last: bool) -> Decoded:
        """Decode whole lines; with ``last`` all of them, else what is complete."""
        ...

    def saved(self) -> Any:
        """Return what `begin` read, JSON-able, for a cursor."""
        ...

    def restore(self, saved: Any) -> None:
        """Go on with what an earlier run saved, without `begin`."""
        ...


class Place:
    """Tells where the records of a chunk lie, from the lines it was decoded from; counts only when asked."""

    __slots__ = ("_line", "_offset", "_offsets", "_path", "_raw", "_starts")

    def __init__(self, path: str, raw: bytes, offset: int, line: int, starts: Sequence[int] | None) -> None:
        self._path = path
        self._raw = raw
        self._offset = offset
        self._line = line
        self._starts = starts
        self._offsets: list[int] | None = None

    def __call__(self, index: int) -> str:
        """Return the place of the record at an index, like ``flights.csv:17 (byte 2048)``."""
        if self._offsets is None:
            self._offsets = [0, *accumulate(map(len, split_lines(self._raw)))]
        line = index if self._starts is None else self._starts[index]
        return f"{self._path}:{self._line + line + 1} (byte {self._offset + self._offsets[line]})"


def split_lines(raw: bytes) -> list[bytes]:
    """Return the lines, each with its newline; only a line feed ends a line."""
    lines = [line + b"\n" for line in raw.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    return lines


def bad_record(raw: bytes, reason: str, size: int | None = None) -> Failed:
    """Return a bad record: the beginning of its text, and why it is bad. ``size`` is its length when raw is cut."""
    size = len(raw) if size is None else size
    shown = raw[:SHOWN]
    text = shown.decode("utf-8", "backslashreplace").rstrip("\r\n")
    if size > len(shown):
        text += f" ... ({size:,} bytes in all)"
    return Failed(text, RecordError(reason))
