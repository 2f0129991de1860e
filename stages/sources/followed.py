"""A file that is read as it grows, past rotation by renaming and truncation after copying."""

import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from anyio.to_thread import run_sync

from pipeline.clock import Clock
from stages.sources.marks import TAIL, Mark, resumed
from stages.sources.streams import Plain

__all__ = ("POLL", "Followed", "Turn", "find_copy", "find_rotated", "inode_of")

POLL = 0.2
"""Seconds between looks at a file that does not grow."""


class Turn(Enum):
    """What becomes of a followed file in place of more bytes."""

    ENDED = "ended"
    """Another file has taken its place, and it has been read to its end."""
    RESTARTED = "restarted"
    """It was truncated, or written anew: what it holds now begins at its start."""


class Followed:
    """An open file that may grow.

    ``newer`` tells whether there is a file behind this one already. The descriptor is kept until a file that was
    renamed has not grown for a whole poll, because its writer may not have noticed yet.
    """

    def __init__(self, path: str, stream: Plain, mark: Mark, clock: Clock, newer: Callable[[], bool]) -> None:
        self._path = path
        self._stream = stream
        self._clock = clock
        self._newer = newer
        self._tail = mark.tail
        self._leaving = False
        self._found: bytes | Turn | None = None
        self.inode = inode_of(os.fstat(stream.fileno()))
        self.size = 0

    async def read(self, size: int) -> bytes | Turn:
        """Wait for bytes that follow, or for a turn. May be cancelled while it waits, and nothing is lost."""
        while self._found is None:
            await run_sync(self._look, size)
            if self._found is None:
                await self._clock.sleep(POLL)
        found, self._found = self._found, None
        return found

    def raw_offset(self) -> int:
        """Return how many bytes of the file were read."""
        return self._stream.raw_offset()

    async def close(self) -> None:
        """Close the file."""
        await run_sync(self._stream.close)

    def saved(self) -> dict[str, Any]:
        """Return what a cursor holds to find the file again when it was renamed."""
        return {"inode": list(self.inode), "size": max(self.size, self._stream.raw_offset())}

    def _look(self, size: int) -> None:
        # Kept here, because a read that is cancelled meanwhile never sees what it returns.
        self._found = self._next(size)

    def _next(self, size: int) -> bytes | Turn | None:
        before = self._stream.raw_offset()
        block = self._stream.read(size)
        # After the read: a truncation just before it is seen as well, and what was read then is dropped.
        if self._was_rewritten(before):
            return Turn.RESTARTED
        if block:
            self._tail = (self._tail + block)[-TAIL:] if len(block) < TAIL else block[-TAIL:]
            self._leaving = False
            return block
        if self._leaving:
            return Turn.ENDED
        self._leaving = self._is_replaced() or self._newer()
        return None

    def _was_rewritten(self, offset: int) -> bool:
        self.size = os.fstat(self._stream.fileno()).st_size
        if self.size < offset:
            return True
        return os.pread(self._stream.fileno(), len(self._tail), offset - len(self._tail)) != self._tail

    def _is_replaced(self) -> bool:
        try:
            return inode_of(os.stat(self._path)) != self.inode
        except FileNotFoundError:
            return False  # renamed, and its successor is still to come


def inode_of(status: os.stat_result) -> tuple[int, int]:
    """Return what a file is on its device, whatever its name."""
    return status.st_dev, status.st_ino


def find_rotated(path: str, saved: Mapping[str, Any]) -> str | None:
    """Return the new name of a followed file that was renamed within its folder, None when it isn't there.

    It has the inode that it had, and the content: an inode alone may belong to another file by now.
    """
    for entry in _neighbours(path):
        if [entry.stat().st_dev, entry.inode()] == saved.get("inode") and _holds(entry.path, saved):
            return entry.path
    return None


def find_copy(path: str, saved: Mapping[str, Any]) -> str | None:
    """Return a copy of a followed file in its folder with its name in its own: what rotation by copying leaves."""
    name = os.path.basename(path)
    for entry in _neighbours(path):
        if saved["offset"] > 0 and entry.name.startswith(name) and _holds(entry.path, saved):
            return entry.path
    return None


def _neighbours(path: str) -> list[os.DirEntry[str]]:
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            return sorted((e for e in entries if e.name != name and e.is_file()), key=lambda entry: entry.name)
    except OSError:
        return []


def _holds(path: str, saved: Mapping[str, Any]) -> bool:
    try:
        stream = Plain(path)
    except OSError:
        return False
    try:
        return isinstance(resumed(stream, saved), Mark)
    finally:
        stream.close()
