"""The bytes of one file as they come, cut into runs of whole lines of a good size."""

from typing import NamedTuple

from stages.sources.marks import Mark

__all__ = ("Cut", "Cutter", "LongLine")

RECORDS = 256
"""Lines in a run: few enough that the records of one are still in the cache when the next stage works on them."""
MOST = 128 * 1024
"""Bytes in a run, but for one line that is longer."""


class Cut(NamedTuple):
    """Whole lines. ``last`` says that nothing that follows can belong to them."""

    raw: bytes
    last: bool


class LongLine(NamedTuple):
    """A line longer than allowed, of which only the beginning was kept; the mark is behind it already."""

    head: bytes
    offset: int
    line: int
    size: int


class Cutter:
    """Gathers blocks and cuts them behind newlines.

    ``live`` cuts what is there; otherwise a run is only cut when more is known to follow, so that the last one is
    known to be the last. Holds at most a block, a run and a line of ``max_line`` bytes.
    """

    def __init__(self, mark: Mark, max_line: int, *, live: bool = False, records: int = RECORDS) -> None:
        self.mark = mark
        self.ended = False
        self._max_line = max_line
        self._live = live
        self._records = records
        self._unit = min(MOST, records * 64)
        self._buffer = b""
        self._at: int = 0
        # A block of which only the beginning has gone to the buffer, behind what was left there: enough for one run. To
        # copy all of it would take from the cache what the records need.
        self._block = b""
        self._block_at: int = 0
        self._left: int = 0
        self._long: LongLine | None = None

    def feed(self, block: bytes) -> None:
        """Take the bytes that follow."""
        self._gather()
        left = self._buffer[self._at :]
        self._buffer, self._at = block, 0
        if left:
            first = block.find(b"\n", self._unit) + 1 if not self._live else 0
            if 0 < first < len(block):
                self._block, self._block_at, self._left = block, first, len(left)
                block = block[:first]
            self._buffer = left + block

    def end(self) -> None:
        """Take note that no more bytes follow: what is left is the last line."""
        self.ended = True

    def go_live(self) -> None:
        """Cut what is there from now on: nobody knows what follows."""
        self._live = True

    def is_empty(self) -> bool:
        """Tell whether everything that came was cut."""
        return self._at == len(self._buffer) and not self._block

    def starts(self, prefix: bytes) -> bool | None:
        """Tell whether what is there begins with the prefix; None while that can't be known."""
        self._gather()
        have = self._buffer[self._at : self._at + len(prefix)]
        return None if len(have) < len(prefix) and prefix.startswith(have) and not self.ended else have == prefix

    def cut(self, least: int = 0) -> Cut | LongLine | None:
        """Return the next run, longer than ``least`` bytes (a run of that many was not enough), without moving on.

        None means: feed more or, when ended, that there is no more.
        """
        if self._block:
            self._go_on(least)
        if self._long is not None:
            return self._skip(self._long)
        buffer, start = self._buffer, self._at + least
        if start >= len(buffer):
            return Cut(buffer[self._at :], True) if self.ended and not self.is_empty() else None
        reach = start + min(max(self._unit, least), self._max_line) + 1
        if reach >= len(buffer) and not (self.ended or self._live):
            return None
        limit = start + self._max_line + 1
        end = (buffer.rfind(b"\n", start, reach) + 1) or (buffer.find(b"\n", reach, limit) + 1)
        if end:
            return Cut(buffer[self._at : end], self.ended and end == len(buffer) and not self._block)
        if len(buffer) >= limit:
            return Cut(buffer[self._at : start], True) if least else self._skip(self._begin_long())
        return Cut(buffer[self._at :], True) if self.ended else None

    def move(self, count: int, lines: int) -> None:
        """Move on over so many bytes, which are so many lines; 0 for what is no line, as a byte order mark."""
        self.mark.move_over(self._buffer, self._at, count, lines)
        self._at += count
        if lines:
            self._unit = min(max(count * self._records // lines, 64), MOST)

    def _go_on(self, least: int) -> None:
        """Turn to the block once what was left before it is cut; put the two together where more is needed.

        So runs end where they would if all had been put together: a resume cuts the same ones.
        """
        if self._at >= self._left:
            self._buffer, self._at = self._block, self._at - self._left
            self._block, self._block_at = b"", 0
        elif least or self._long is not None or self._at + self._unit + 1 >= len(self._buffer):
            self._gather()

    def _gather(self) -> None:
        if self._block:
            self._buffer = self._buffer[self._at :] + self._block[self._block_at :]
            self._at = 0
            self._block, self._block_at = b"", 0

    def _begin_long(self) -> LongLine:
        head = self._buffer[self._at : self._at + min(1024, self._max_line)]
        return LongLine(head, self.mark.offset, self.mark.line, 0)

    def _skip(self, long: LongLine) -> LongLine | None:
        """Drop what belongs to a line that is too long, so that memory stays bounded."""
        end = self._buffer.find(b"\n", self._at) + 1
        data = self._buffer[self._at : end or len(self._buffer)]
        self._at += len(data)
        complete = bool(end) or self.ended
        self.mark.move(data, int(complete))
        long = long._replace(size=long.size + len(data) - bool(end))
        self._long = None if complete else long
        return long if complete else None
