"""Divides files into ranges that begin and end between records. Blocking, for threads.

A range is where a cursor stands at its start, and the offset of its end; a large file is read through once for that,
because a cursor counts lines, and because in csv a newline ends a record only where the quotes before it are even.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from msgspec import Struct

from pipeline.stage import Partition
from pipeline.units import format_size
from stages.sources.formats import Format
from stages.sources.marks import Mark

__all__ = ("Rows", "divide_files", "known_ends")

_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"


class Rows(Struct, frozen=True):
    """How rows of csv are told from lines; ``encoding`` and ``delimiter`` for a look at the row behind a cut."""

    quote: bytes
    delimiter: str
    encoding: str


class _Range(Struct, frozen=True):
    """Bytes of one file, from a cursor (None at its beginning) to an offset; None where it can't be cut."""

    path: str
    low: int
    high: int
    whole: bool
    cursor: Mapping[str, Any] | None = None
    end: int | None = None


def divide_files(
    files: Sequence[str],
    packed: frozenset[str],
    size: int,
    ends: Mapping[str, int | None],
    format: Format,
    rows: Rows | None,
    max_head: int,
) -> list[Partition]:
    """Return partitions of about ``size`` bytes: ranges of larger files, several smaller files together.

    ``packed`` are the files that can only be read as a whole, ``ends`` how far the files are in partitions already,
    None for those of which nothing more is read.
    """
    found: list[Partition] = []
    gathered: list[_Range] = []
    for path in files:
        for part in _ranges(path, path in packed, size, ends.get(path, 0), format, rows, max_head):
            if part.low or sum(each.high - each.low for each in (*gathered, part)) > size:
                found += _partition(gathered)
                gathered = []
            gathered.append(part)
            if not part.whole:
                found += _partition(gathered)
                gathered = []
    return found + _partition(gathered)


def known_ends(known: Sequence[Partition]) -> dict[str, int | None]:
    """Return how far each file is in partitions."""
    ends: dict[str, int | None] = {}
    for partition in known:
        ends.update(zip(partition.what["files"], partition.what["ends"], strict=True))
    return ends


def _partition(ranges: Sequence[_Range]) -> list[Partition]:
    if not ranges:
        return []
    first, last = ranges[0], ranges[-1]
    files = [each.path for each in ranges]
    cursor = None if first.cursor is None else {**first.cursor, "files": files, "index": 0, "done": False}
    name = first.path
    if not (first.whole and last.whole):
        name += f" from {format_size(first.low)} to {format_size(last.high)}"
    elif len(files) > 1:
        name += f" to {last.path} ({len(files)} files)"
    what = {"files": files, "ends": [each.end for each in ranges], "cursor": cursor}
    return [Partition(name=name, what=what, size=sum(each.high - each.low for each in ranges))]


def _ranges(
    path: str, packed: bool, size: int, known: int | None, format: Format, rows: Rows | None, max_head: int
) -> Iterator[_Range]:
    if known is None:
        return
    length = os.path.getsize(path)
    if packed:
        yield _Range(path, 0, length, True)
    elif known == 0 and length <= size:
        yield _Range(path, 0, length, True, None, length)
    elif length > known:
        yield from _Dividing(path, length, size, format, rows).ranges(known, max_head)


class _Dividing:
    """Reads one file through and finds where it can be cut."""

    def __init__(self, path: str, length: int, size: int, format: Format, rows: Rows | None) -> None:
        self._path = path
        self._length = length
        self._size = size
        self._format = format
        self._rows = rows
        self._width = 0
        self._mark = Mark()
        self._quotes = 0
        self._header = 0

    def ranges(self, known: int, max_head: int) -> Iterator[_Range]:
        """Yield the ranges behind what is known, in order."""
        with open(self._path, "rb") as file:
            divisible = self._begin(file.read(min(self._length, max_head + len(_BOM))))
            file.seek(0)
            low, cursor = 0, None
            marks = list(self._marks(file, known, divisible))
            if self._quotes % 2:
                # One of them is stray, and nobody knows behind which newlines a row ends.
                marks = [mark for mark in marks if mark.offset <= known]
            for mark in marks:
                if mark.offset > known:
                    yield self._range(low, mark.offset, cursor)
                low, cursor = mark.offset, {**mark.saved(), "format": self._format.saved()}
            yield self._range(low, self._length, cursor)

    def _range(self, low: int, high: int, cursor: Mapping[str, Any] | None) -> _Range:
        return _Range(self._path, low, high, low == 0 and high == self._length, cursor, high)

    def _begin(self, head: bytes) -> bool:
        """Read the header; tell whether the file can be cut behind it."""
        start = len(_BOM) if head.startswith(_BOM) else 0
        last = len(head) == self._length
        whole = head[start:] if last else head[start : head.rfind(b"\n") + 1]
        try:
            begun = self._format.begin(whole, last) if self._format.heads else (0, 0)
        except ValueError:
            return False  # who reads it will say why
        if begun is None:
            return False
        self._header = start + begun[0]
        if self._rows is not None:
            self._width = len(self._format.saved())
        return True

    def _marks(self, file: BinaryIO, known: int, divisible: bool) -> Iterator[Mark]:
        """Yield where to cut, beginning with what is known."""
        mark, offset = self._mark, 0
        wanted = known or self._size
        while offset < self._length and (block := file.read(min(_BLOCK, self._length - offset))):
            at = 0
            while wanted <= offset + len(block) and (divisible or wanted == known):
                cut = wanted - offset if wanted == known else self._cut(block, offset, at, wanted - offset)
                if cut is None:
                    wanted = max(wanted, offset + len(block) + 1)
                    break
                self._pass(block[at:cut])
                at = cut
                if mark.offset < self._length:
                    yield mark.copy()
                wanted = mark.offset + self._size
            self._pass(block[at:])
            offset += len(block)

    def _pass(self, data: bytes) -> None:
        self._mark.move(data, data.count(b"\n"))
        if self._rows is not None and self._rows.quote:
            self._quotes += data.count(self._rows.quote)

    def _cut(self, block: bytes, offset: int, counted: int, wanted: int) -> int | None:
        """Return the first place in a block, from an index on, behind the end of a record; None when it has none.

        Up to ``counted`` the quotes of the block are counted already.
        """
        at = max(wanted, counted, self._header - offset, 1)
        quote, quotes = self._rows.quote if self._rows is not None else b"", self._quotes
        while (end := block.find(b"\n", at - 1) + 1) > 0:
            if not quote:
                return end
            quotes += block.count(quote, counted, end)
            counted = end
            if quotes % 2 == 0 and self._is_row(block, offset, end):
                return end
            at = end + 1
        return None

    def _is_row(self, block: bytes, offset: int, start: int) -> bool:
        """Tell whether the line that begins there is a row: behind a stray quote, parity alone would be wrong."""
        end, rows = block.find(b"\n", start), self._rows
        if rows is None or end < 0:
            return offset + start == self._length
        line = block[start:end].decode(rows.encoding, "replace")
        quote = rows.quote.decode()
        if line.count(quote) % 2:
            return False
        import csv

        try:
            return len(next(csv.reader([line], delimiter=rows.delimiter, quotechar=quote))) == self._width
        except (StopIteration, csv.Error):
            return False
