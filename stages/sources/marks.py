"""How far a file has been read, and how it is known again: hashes of its head and of what lies before the mark."""

import hashlib
from collections.abc import Mapping
from typing import Any

from stages.sources.streams import Stream, read_exactly

__all__ = ("HEAD", "TAIL", "Mark", "digest", "resumed")

HEAD = 1024
"""Bytes of a file's beginning that are its fingerprint, or fewer while fewer have been read."""
TAIL = 4096
"""Bytes before a mark that must be the same on resume."""


class Mark:
    """A place in a file's (decompressed) bytes; ``line`` counts the lines before it."""

    __slots__ = ("_head_digest", "head", "head_size", "line", "offset", "tail")

    def __init__(
        self, offset: int = 0, line: int = 0, head: bytes = b"", tail: bytes = b"", head_size: int = HEAD
    ) -> None:
        self.offset = offset
        self.line = line
        self.head = head
        self.tail = tail
        self.head_size = head_size
        self._head_digest = (-1, "")

    def move(self, data: bytes, lines: int) -> None:
        """Move over bytes that follow and hold so many lines."""
        if len(self.head) < self.head_size:
            self.head += data[: self.head_size - len(self.head)]
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]
        self.offset += len(data)
        self.line += lines

    def move_over(self, buffer: bytes, start: int, count: int, lines: int) -> None:
        """Move over so many bytes of a buffer; the same as `move` with that part of it, which is not copied."""
        if count < TAIL or len(self.head) < self.head_size:
            self.move(buffer[start : start + count], lines)
            return
        end = start + count
        self.tail = buffer[end - TAIL : end]
        self.offset += count
        self.line += lines

    def copy(self) -> "Mark":
        """Return a mark that stands still."""
        mark = Mark(self.offset, self.line, self.head, self.tail, self.head_size)
        mark._head_digest = self._head_digest
        return mark

    def saved(self) -> dict[str, Any]:
        """Return what a cursor holds of it."""
        if self._head_digest[0] != len(self.head):
            self._head_digest = (len(self.head), digest(self.head))
        return {
            "offset": self.offset,
            "line": self.line,
            "head": list(self._head_digest),
            "tail": digest(self.tail),
        }


def digest(data: bytes) -> str:
    """Return the hash by which bytes are known again."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def resumed(stream: Stream, saved: Mapping[str, Any]) -> Mark | str:
    """Bring a stream that was just opened to a mark that a cursor holds, and return it.

    Returns a text instead when the bytes are not those that were read: what differs.
    """
    offset: int = saved["offset"]
    head_size, head_digest = saved["head"]
    tail_size = min(TAIL, offset)
    if offset - tail_size < head_size:
        before = read_exactly(stream, offset)
        head, tail, have = before[:head_size], before[-tail_size:] if tail_size else b"", len(before)
    else:
        head = read_exactly(stream, head_size)
        stream.skip_to(offset - tail_size)
        tail = read_exactly(stream, tail_size)
        have = offset - tail_size + len(tail)
    if digest(head) != head_digest and len(head) == head_size:
        return f"its first {head_size:,} bytes differ"
    if have < offset:
        return f"it is shorter than the {offset:,} bytes that were read"
    if digest(tail) != saved["tail"]:
        return f"the {tail_size:,} bytes before byte {offset:,} differ"
    return Mark(offset, saved["line"], head, tail, HEAD if head_size == offset else head_size)
