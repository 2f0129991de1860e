"""One file that is only appended to: what it amounts to, and how it is cut back to what it was."""

import errno
import os
from hashlib import blake2b
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

import msgspec

from pipeline.errors import ConfigError, StateError, StorageError, Unavailable
from stages.sinks.frames import Frames

__all__ = ("AppendFile", "FilePoint", "Mark", "digest", "fault", "inspect", "is_copy", "read_tail")

TAIL = 4096
FRAME = 256 * 2**10
"""Bytes gathered before they become a compressed frame; larger ones would hardly be denser."""

_STORAGE = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_PASSING = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY, errno.EINTR, errno.ETXTBSY}
_NOT_COPIED = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
"""What a kernel answers that can't copy between two files: of two file systems, or on one that has no such thing."""
_BLOCK = 256 * 2**10
"""Bytes that are copied at a time: they stay in the cache between being read and being written."""
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class FilePoint(msgspec.Struct, frozen=True):
    """How far a file counts: its length, the hash of the 4 KiB before it, and the device and inode it had.

    A folder that was copied or restored has other inodes: then length and hash say whether it is the same, `is_copy`.
    """

    path: str
    inode: tuple[int, int]
    length: int = 0
    tail: str = ""


class Mark(NamedTuple):
    """What a file was before a write; see `AppendFile.mark`."""

    length: int
    tail: bytes
    pending: list[bytes]
    gathered: int
    size: int


class AppendFile:
    """A file and what has been written to it. It is opened when it is first written to, and can be released meanwhile.

    With ``frames``, bytes are gathered and written as whole frames, so that a write that fails leaves the compressor
    as it was. Nothing here waits: regular files take their bytes at memory speed.
    """

    __slots__ = ("_fd", "_frames", "_pending", "_pending_size", "_point", "inode", "length", "path", "tail")

    def __init__(self, point: FilePoint, tail: bytes = b"", frames: Frames | None = None) -> None:
        self.path = point.path
        self.inode = point.inode
        self.length = point.length
        self.tail = tail
        self._frames = frames
        self._fd: int | None = None
        self._point: FilePoint | None = None
        self._pending: list[bytes] = []
        self._pending_size = 0

    @classmethod
    def create(cls, path: str, frames: Frames | None) -> "AppendFile":
        """Make the file, empty.

        :raises FileExistsError: when there is anything under this name.
        """
        fd = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return cls(FilePoint(path, (found.st_dev, found.st_ino)), frames=frames)

    @classmethod
    def behind(cls, point: FilePoint, frames: Frames | None) -> "AppendFile | None":
        """Return the file of a point, to be appended to behind all that is there; None when it is gone or another.

        :raises StateError: when it does not hold what it held at the point.
        """
        try:
            fd = os.open(point.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(fd)
            inode = (found.st_dev, found.st_ino)
            whole = found.st_size >= point.length and digest(read_tail(fd, point.length)) == point.tail
            if inode != point.inode and not (whole and is_copy(point, found)):
                return None
            if not whole:
                raise StateError(
                    f"{point.path}: does not hold any more what this pipeline wrote; put it back as it was"
                )
            file = cls(FilePoint(point.path, inode, found.st_size), read_tail(fd, found.st_size), frames)
            return file
        finally:
            os.close(fd)

    @property
    def size(self) -> int:
        """Bytes written, those that wait for their frame included (uncompressed)."""
        return self.length + self._pending_size

    @property
    def is_gathering(self) -> bool:
        """Whether bytes wait for their frame."""
        return bool(self._pending)

    @property
    def is_open(self) -> bool:
        """Whether it holds a file descriptor."""
        return self._fd is not None

    def point(self) -> FilePoint:
        """Return how far it counts; what waits for its frame is not in it."""
        if self._point is None or self._point.length != self.length:
            self._point = FilePoint(self.path, self.inode, self.length, digest(self.tail))
        return self._point

    def mark(self) -> Mark:
        """Return what `back` needs to undo what is added from here on."""
        return Mark(self.length, self.tail, self._pending, len(self._pending), self._pending_size)

    def add(self, data: bytes) -> None:
        """Append bytes. A last line without an end, left by somebody else, is ended first.

        :raises OSError: then part of it may be in the file: go `back`.
        """
        if self._frames is None:
            if self.tail and not self.tail.endswith(b"\n"):
                data = b"\n" + data
            self._write(data)
            return
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= FRAME:
            self.end_frame()

    def take_over(self, lead: bytes, source: int) -> None:
        """Append all that an open file holds, lines or whole frames as they belong into this one; before, ``lead``."""
        size = os.fstat(source).st_size
        if not size:
            return
        if lead or self._frames is None:
            self.add(lead)
            self.end_frame()
        copied = self._copy(source, size)
        self.length += copied
        self.tail = (self.tail + read_tail(source, copied))[-TAIL:]
        while block := os.pread(source, _BLOCK, copied):
            self._write(block)
            copied += len(block)

    def end_frame(self) -> None:
        """Write what waits as one frame, if anything does."""
        if self._frames is not None and self._pending:
            packed = self._frames.pack(b"".join(self._pending))
            self._pending, self._pending_size = [], 0
            self._write(packed)

    def back(self, mark: Mark) -> None:
        """Cut the file back to what it was at the mark.

        :raises OSError: when even that fails.
        """
        if self.length != mark.length or self._fd is not None:
            os.ftruncate(self._descriptor(), mark.length)
        self.length, self.tail, self._point = mark.length, mark.tail, None
        del mark.pending[mark.gathered :]
        self._pending, self._pending_size = mark.pending, mark.size

    def open(self) -> None:
        """Open it to append.

        :raises StateError: when it is another file by now, or has another length.
        """
        if self._fd is None:
            fd = self._descriptor()
            found = os.fstat(fd)
            if found.st_size != self.length:
                self.release()
                raise StateError(
                    f"{self.path}: expected {self.length} bytes, found {found.st_size}: "
                    "somebody else writes to this file; give each writer a path of its own"
                )

    def release(self) -> None:
        """Let go of the descriptor; what waits for its frame must have been written."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def duplicate(self) -> int:
        """Return a descriptor of its own for a sync, which may outlive the release of this one."""
        return os.dup(self._fd) if self._fd is not None else os.open(self.path, _OPEN)

    def _descriptor(self) -> int:
        if self._fd is None:
            self._fd = self._opened(_OPEN)
        return self._fd

    def _opened(self, flags: int) -> int:
        fd = os.open(self.path, flags)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != self.inode:
            os.close(fd)
            raise StateError(f"{self.path}: another file took its place while it was written; put it back")
        return fd

    def _copy(self, source: int, size: int) -> int:
        """Append as much of an open file as the kernel copies by itself; return how many bytes those were.

        Copied through memory of ours they would be touched twice more, and a file system that can share blocks of two
        files would not.
        """
        if not hasattr(os, "copy_file_range"):
            return 0
        target = self._opened(os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # it refuses one that was opened to append
        try:
            end = os.fstat(target).st_size
            done = 0
            while done < size:
                try:
                    count = os.copy_file_range(source, target, size - done, done, end + done)
                except OSError as error:
                    if error.errno in _NOT_COPIED:
                        break
                    raise
                if not count:
                    break
                done += count
            return done
        finally:
            os.close(target)

    def _write(self, data: bytes) -> None:
        fd = self._descriptor()
        written = os.write(fd, data)
        if written != len(data):
            view = memoryview(data)
            while written < len(data):
                written += os.write(fd, view[written:])
        self.length += len(data)
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]


def digest(tail: bytes) -> str:
    """Return the hash of a tail."""
    return blake2b(tail, digest_size=16).hexdigest()


def is_copy(point: FilePoint, found: os.stat_result) -> bool:
    """Tell whether another file that ends in the same tail at the same length can only be a copy, as of a backup.

    A short one says little, so there must be nothing behind it that might be somebody else's.
    """
    return found.st_size == point.length or point.length >= TAIL


def read_tail(fd: int, length: int) -> bytes:
    """Return the last 4 KiB before a length; fewer where the file is shorter."""
    wanted = min(TAIL, length)
    return os.pread(fd, wanted, length - wanted)


def inspect(path: str) -> os.stat_result | None:
    """Return what is under a path, None for nothing.

    :raises ConfigError: when it is no regular file: a folder, a link, a device, a pipe.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if S_ISREG(found.st_mode):
        return found
    kind = "a folder" if S_ISDIR(found.st_mode) else "no regular file (a link, a device or a pipe)"
    raise ConfigError(f"{path}: is {kind}; name a regular file, or use the sink stdout to write to a pipe")


def fault(error: OSError, path: str, doing: str = "write to") -> Exception:
    """Return what an error of the system means: a `StorageError`, or `Unavailable` where another attempt may do."""
    cause = error.strerror or str(error)
    if error.errno in _PASSING:
        return Unavailable(f"can't {doing} {path}: {cause}")
    code = errno.errorcode.get(error.errno or 0, "")
    return StorageError(f"can't {doing} {path}: {cause} ({code}); make room or repair it, then run again to resume")
