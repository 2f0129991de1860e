"""The bytes of a compressed file, decompressed in small steps as they are read."""

import os
import zlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from pipeline.errors import ConfigError, StageError
from stages.sources.streams import Plain, Stream

__all__ = ("Codec", "Compressed", "codec_of", "is_compressed")


class Codec(Struct, frozen=True):
    """A compression: what begins a member (gzip) or frame (zstd), and what it raises when one is damaged.

    ``step`` bytes are decompressed at a time: that bounds what they can blow up to, 16 MiB of gzip and 32 MiB of zstd.
    """

    name: str
    start: Callable[[], Any]
    errors: type[Exception]
    step: int


def codec_of(compression: str, path: str) -> Codec | None:
    """Return the compression of a file, by its suffix when it is ``auto``.

    :raises ConfigError: when the package for it is not installed.
    """
    compression = _named(compression, path)
    if compression == "gzip":
        return Codec("gzip", lambda: zlib.decompressobj(wbits=31), zlib.error, 16 * 1024)
    if compression != "zstd":
        return None
    try:
        import zstandard
    except ImportError:
        raise ConfigError(f"{path!r} needs the package zstandard: pip install 'pipeline[zstd]'") from None
    return Codec("zstd", zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError, 1024)


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
        self._frame: Any = None
        self._frame_at = 0
        self._frames = 0
        self._out = 0
        self._ended = False
        self._damage: StageError | None = None

    def read(self, size: int) -> bytes:
        """Return decompressed bytes that follow."""
        parts = [self._ready]
        have = len(self._ready)
        while have < size and not self._ended and not (self._live and have):
            parts.append(self._step())
            have += len(parts[-1])
        if not have and self._damage is not None:
            raise self._damage
        data = b"".join(parts)
        self._ready = data[size:]
        self._out += min(have, size)
        return data[:size]

    def skip_to(self, offset: int) -> None:
        """Read up to an offset and throw that away."""
        while self._out < offset and self.read(min(2**20, offset - self._out)):
            pass

    def raw_offset(self) -> int:
        """Return how much of the file itself was decompressed."""
        return self._file.raw_offset() - len(self._pending)

    def ahead(self) -> int:
        """Return how many decompressed bytes wait to be read: at most what one step gave."""
        return len(self._ready)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _step(self) -> bytes:
        at = self.raw_offset()
        data = self._pending or self._file.read(self._codec.step)
        self._pending = b""
        if not data:
            self._ended = True
            if self._frame is not None:
                self._damaged(at, "it ends in the middle")
            return b""
        if self._frame is None:
            if self._codec.name == "gzip" and self._frames and not data.strip(b"\0"):
                return b""  # tapes and some tools fill up the last block with zeros
            self._frame, self._frame_at = self._codec.start(), at
            self._frames += 1
        return self._decompress(data, at)

    def _decompress(self, data: bytes, at: int) -> bytes:
        try:
            out: bytes = self._frame.decompress(data)
        except self._codec.errors as error:
            return self._salvage(data, at, error)
        if self._frame.eof:
            self._pending = self._frame.unused_data
            self._frame = None
        return out

    def _salvage(self, data: bytes, at: int, error: Exception) -> bytes:
        """Return what comes before the first bad byte: an error takes the whole step with it, so go again by bytes."""
        self._ended = True
        good = bytearray()
        bad = 0
        if not self._live:
            frame = self._restarted(at)
            try:
                for bad in range(len(data)):
                    good += frame.decompress(data[bad : bad + 1])
            except self._codec.errors:
                pass  # here it is
        trailing = self._frames > 1 and at + bad - self._frame_at < 10
        self._damaged(at + bad, "what follows the end of the data is something else" if trailing else str(error))
        return bytes(good)

    def _restarted(self, at: int) -> Any:
        """Return the frame at hand as it was before it met the bytes at an offset of the file."""
        frame = self._codec.start()
        with open(self._path, "rb") as file:
            file.seek(self._frame_at)
            while (rest := at - file.tell()) > 0:
                frame.decompress(file.read(min(rest, self._codec.step)))
        return frame

    def _damaged(self, at: int, reason: str) -> None:
        self._damage = StageError(
            f"{self._path!r}: its {self._codec.name} data is damaged at byte {at:,} of the file ({reason});"
            " what comes before was read"
        )


def _named(compression: str, path: str) -> str:
    if compression != "auto":
        return compression
    return {".gz": "gzip", ".zst": "zstd"}.get(os.path.splitext(path)[1].lower(), "none")
