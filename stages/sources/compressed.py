"""The bytes of a compressed file, decompressed in small steps as they are read."""

import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from msgspec import Struct

from pipeline.errors import ConfigError, StageError
from stages.sources.streams import Plain, Stream

__all__ = ("Codec", "Compressed", "codec_of", "is_compressed")


class Codec(Struct, frozen=True):
    """A compression: what begins a member (gzip) or frame (zstd), and what it raises when one is damaged.

    ``step`` bytes are decompressed at a time. What they can blow up to is no more than was asked for where the
    decompressor can be ``bounded``, and 32 MiB of zstd.
    """

    name: str
    start: Callable[[], Any]
    errors: type[Exception]
    step: int
    bounded: bool


def codec_of(compression: str, path: str) -> Codec | None:
    """Return the compression of a file, by its suffix when it is ``auto``.

    :raises ConfigError: when the package for it is not installed.
    """
    compression = _named(compression, path)
    if compression == "gzip":
        return Codec("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error, 16 * 1024, True)
    if compression != "zstd":
        return None
    try:
        import zstandard
    except ImportError:
        raise ConfigError(f"{path!r} needs the package zstandard: pip install 'pipeline[zstd]'") from None
    return Codec("zstd", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError, 1024, False)


def is_compressed(compression: str, path: str) -> bool:
    """Tell whether a file is read through a decompressor."""
    return _named(compression, path) != "none"


class Compressed(Stream):
    """Any number of members or frames, one behind the other.

    ``live`` returns what there is rather than waiting for more. When the data is damaged, everything before that place
    comes first.

    :raises StageError: at the place where the data is damaged; names the offset in the file.
    """

    def __init__(self, path: str, codec: Codec, *, live: bool = False) -> None:
        self._path = path
        self._codec = codec
        self._live = live
        self._file = Plain(path)
        self._pending = b""
        self._ready = b""
        self._taken = 0
        self._frame: Any = None
        self._frame_at = 0
        self._frame_out = 0
        self._full = False
        """Whether the last step gave all that it was allowed to: the decompressor may hold more of it."""
        self._frames = 0
        self._out = 0
        self._ended = False
        self._damage: StageError | None = None

    def read(self, size: int) -> bytes:
        """Return decompressed bytes that follow."""
        parts: list[bytes] = []
        have = 0
        while have < size:
            if self._taken < len(self._ready):
                parts.append(self._ready[self._taken : self._taken + size - have])
                self._taken += len(parts[-1])
                have += len(parts[-1])
            elif self._ended or (self._live and have):
                break
            else:
                self._ready, self._taken = b"", 0  # let go of before the next is made
                self._ready = self._step(size - have)
        if not have and self._damage is not None:
            raise self._damage
        self._out += have
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip_to(self, offset: int) -> None:
        """Read up to an offset and throw that away."""
        while self._out < offset and self.read(min(2**20, offset - self._out)):
            pass

    def raw_offset(self) -> int:
        """Return how much of the file itself was decompressed."""
        return self._file.raw_offset() - len(self._pending)

    def ahead(self) -> int:
        """Return how many decompressed bytes wait to be read: at most what one step gave."""
        return len(self._ready) - self._taken

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _step(self, room: int) -> bytes:
        at = self.raw_offset()
        data = b"" if self._full else self._pending or self._file.read(self._codec.step)
        if not data and not self._full:
            self._ended = True
            if self._frame is not None:
                self._damaged(at, "it ends in the middle")
            return b""
        self._pending = b""
        if self._frame is None:
            if self._codec.name == "gzip" and self._frames and not data.strip(b"\0"):
                return b""  # tapes and some tools fill up the last block with zeros
            self._frame, self._frame_at, self._frame_out = self._codec.start(), at, 0
            self._frames += 1
        return self._decompress(data, at, room)

    def _decompress(self, data: bytes, at: int, room: int) -> bytes:
        frame = self._frame
        try:
            out: bytes = frame.decompress(data, room) if self._codec.bounded else frame.decompress(data)
        except self._codec.errors as error:
            return self._salvage(at, error)
        self._frame_out += len(out)
        self._pending = frame.unused_data
        self._full = False
        if frame.eof:
            self._frame = None
        elif self._codec.bounded:
            self._pending = frame.unconsumed_tail
            self._full = len(out) == room and not self._pending
        return out

    def _salvage(self, at: int, error: Exception) -> bytes:
        """Return what comes before the first bad byte: an error takes the whole step with it, so go again by bytes."""
        self._ended = True
        good = b""
        if not self._live:
            good, at = self._before_damage()
        trailing = self._frames > 1 and at - self._frame_at < 10
        self._damaged(at, "what follows the end of the data is something else" if trailing else str(error))
        return good

    def _before_damage(self) -> tuple[bytes, int]:
        """Return what the frame at hand holds before its first bad byte and was not handed on, and where that is."""
        frame, made, rest = self._codec.start(), 0, bytearray()
        with open(self._path, "rb") as file:
            sound = self._sound_steps(file)
            at = file.seek(self._frame_at)
            while data := file.read(min(self._codec.step, sound - at) if at < sound else 1):
                try:
                    out = frame.decompress(data)
                except self._codec.errors:
                    break  # here it is
                at += len(data)
                made += len(out)
                if (new := made - self._frame_out - len(rest)) > 0:
                    rest += out[-new:]
        return bytes(rest), at

    def _sound_steps(self, file: BinaryIO) -> int:
        """Return the offset in the file up to which whole steps of the frame at hand can be decompressed."""
        frame = self._codec.start()
        sound = file.seek(self._frame_at)
        try:
            while data := file.read(self._codec.step):
                frame.decompress(data)
                sound += len(data)
        except self._codec.errors:
            pass
        return sound

    def _damaged(self, at: int, reason: str) -> None:
        self._damage = StageError(
            f"{self._path!r}: its {self._codec.name} data is damaged at byte {at:,} of the file ({reason});"
            " what comes before was read"
        )


def _named(compression: str, path: str) -> str:
    if compression != "auto":
        return compression
    return {".gz": "gzip", ".zst": "zstd"}.get(os.path.splitext(path)[1].lower(), "none")
