"""Compressed files as a row of frames (gzip members, zstd frames) that each stand alone, so that a file can be cut back
to the end of any of them and written on behind it.
"""

import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, Protocol

from pipeline.errors import ConfigError

__all__ = ("Compression", "Frames", "frames_for")

Compression = Literal["auto", "none", "gzip", "zstd"]

_BLOCK = 2**20
_SUFFIXES = {".gz": "gzip", ".zst": "zstd"}
# 6 is what the gzip tool does; a frame of 256 KiB takes the loop a few milliseconds with it.
_GZIP_LEVEL = 6


class Frames(Protocol):
    """How bytes become a frame, and where the last whole frame of a file ends."""

    def pack(self, data: bytes) -> bytes:
        """Return the bytes as one frame; the same bytes give the same frame."""
        ...

    def whole(self, file: BinaryIO, start: int) -> int:
        """Return where the last whole frame ends, read from the border of a frame at ``start``."""
        ...

    def unpack(self, data: bytes) -> bytes:
        """Return what the first frames hold, as far as ``data`` goes; for a look at the head of a file.

        :raises ValueError: for anything else than frames.
        """
        ...


def frames_for(compression: Compression, path: str) -> Frames | None:
    """Return how a file of this compression is written; None for a plain one.

    :raises ConfigError: when zstd is asked for and its package is not installed.
    """
    if compression == "auto":
        found = next((name for suffix, name in _SUFFIXES.items() if path.endswith(suffix)), "none")
    else:
        found = compression
    if found == "gzip":
        return _Gzip()
    return _Zstd() if found == "zstd" else None


class _Gzip:
    def pack(self, data: bytes) -> bytes:
        import gzip

        return gzip.compress(data, _GZIP_LEVEL, mtime=0)

    def whole(self, file: BinaryIO, start: int) -> int:
        return _last_border(file, start, lambda: zlib.decompressobj(wbits=31), zlib.error)

    def unpack(self, data: bytes) -> bytes:
        try:
            return zlib.decompressobj(wbits=31).decompress(data, _BLOCK)
        except zlib.error as error:
            raise ValueError(str(error)) from error


class _Zstd:
    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError:
            raise ConfigError(
                "zstd compression needs the package zstandard; install it with: pip install 'pipeline[zstd]'"
            ) from None
        self._error = zstandard.ZstdError
        self._compressor = zstandard.ZstdCompressor(write_checksum=True)
        self._decompressor = zstandard.ZstdDecompressor()

    def pack(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def whole(self, file: BinaryIO, start: int) -> int:
        return _last_border(file, start, self._decompressor.decompressobj, self._error)

    def unpack(self, data: bytes) -> bytes:
        try:
            return self._decompressor.stream_reader(data).read(_BLOCK)
        except self._error as error:
            raise ValueError(str(error)) from error


def _last_border(file: BinaryIO, start: int, begin: Callable[[], Any], broken: type[Exception]) -> int:
    """Decompress frame after frame, throwing away what comes out, and return the end of the last that was whole."""
    file.seek(start)
    border, frame, read = start, None, start
    data = b""
    while data or (data := file.read(_BLOCK)):
        if frame is None:
            frame = begin()
        read += len(data)
        try:
            frame.decompress(data)
        except broken:
            return border
        data = b""
        if frame.eof:
            data = frame.unused_data
            read -= len(data)
            border, frame = read, None
    return border
