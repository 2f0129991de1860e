"""The bytes of a file, read forward; blocking, for threads."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from pipeline.errors import StorageError

__all__ = ("Bounded", "Plain", "Stream", "read_exactly")


class Stream(Protocol):
    """Reads forward through bytes."""

    def read(self, size: int) -> bytes:
        """Return bytes that follow, ``size`` at most; nothing at the end."""
        ...

    def skip_to(self, offset: int) -> None:
        """Go forward to an offset of the (decompressed) bytes, or to their end."""
        ...

    def raw_offset(self) -> int:
        """Return how many bytes of the file itself were read."""
        ...

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Plain:
    """A file as it is. ``path`` is ``-`` for standard input.

    :raises OSError: when it can't be opened.
    :raises StorageError: when the storage fails under a read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._read = 0

    def read(self, size: int) -> bytes:
        """Return bytes that follow, as many as come at once."""
        with _storage(self._path):
            data = os.read(self._file, size)
        self._read += len(data)
        return data

    def skip_to(self, offset: int) -> None:
        """Go to an offset."""
        os.lseek(self._file, offset, os.SEEK_SET)
        self._read = offset

    def raw_offset(self) -> int:
        """Return where it is."""
        return self._read

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file

    def close(self) -> None:
        """Close the file; standard input stays open, it is not ours."""
        if self._file > 0:
            os.close(self._file)
        self._file = -1


class Bounded(Stream):
    """A stream that ends at an offset, if it has not ended before."""

    def __init__(self, stream: Stream, end: int) -> None:
        self._stream = stream
        self._end = end

    def read(self, size: int) -> bytes:
        """Return bytes before the end."""
        return self._stream.read(max(min(size, self._end - self._stream.raw_offset()), 0))

    def skip_to(self, offset: int) -> None:
        """Go to an offset."""
        self._stream.skip_to(min(offset, self._end))

    def raw_offset(self) -> int:
        """Return where it is."""
        return self._stream.raw_offset()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._stream.fileno()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


def read_exactly(stream: Stream, size: int) -> bytes:
    """Return that many bytes, fewer only at the end."""
    parts: list[bytes] = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@contextmanager
def _storage(path: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"can't read {path!r}: {error.strerror}") from error
