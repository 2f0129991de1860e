"""Opens one file for reading: as a whole, as a pipe, or to be followed; at its start or where a cursor left it."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from anyio.to_thread import run_sync
from msgspec import Struct, field

from pipeline.clock import Clock
from pipeline.errors import ConfigError, StateError
from stages.sources.compressed import Compressed, codec_of
from stages.sources.followed import Followed, find_copy, find_rotated, inode_of
from stages.sources.inputs import Piped, Pooled
from stages.sources.marks import Mark, resumed
from stages.sources.streams import Bounded, Plain, Stream

__all__ = ("Opened", "open_followed", "open_piped", "open_whole")


class Opened(Struct):
    """A file that is open, and the mark where reading begins.

    ``live``: what is there is cut at once. ``stays``: when it ends, its path is opened again. ``kept`` is what a
    cursor holds of it besides.
    """

    path: str
    input: Pooled | Piped | Followed
    mark: Mark
    live: bool = False
    stays: bool = False
    kept: Callable[[], dict[str, Any]] = field(default=dict[str, Any])


def open_piped(path: str, compression: str) -> Opened:
    """Open what is read once as it comes; opening may wait too, so its thread does it."""
    codec = codec_of(compression, path)

    def opened() -> Stream:
        return Plain(path) if codec is None else Compressed(path, codec, live=True)

    return Opened(path, Piped(opened), Mark(), live=True)


async def open_whole(path: str, compression: str, saved: Mapping[str, Any] | None, end: int | None = None) -> Opened:
    """Open a file that does not grow; it is read to an offset, if one is given.

    :raises ConfigError: when it can't be opened.
    :raises StateError: when it is not the file that the cursor belongs to.
    """
    stream, mark = await run_sync(_open_whole, path, compression, saved)
    return Opened(path, Pooled(stream if end is None else Bounded(stream, end)), mark)


async def open_followed(
    path: str,
    saved: Mapping[str, Any] | None,
    clock: Clock,
    warn: Callable[[str], None],
    newer: Callable[[], bool],
) -> Opened | None:
    """Open a file that grows, or what became of it when it was rotated away; None while there is none."""
    return await run_sync(_open_followed, path, saved, clock, warn, newer)


def _open_whole(path: str, compression: str, saved: Mapping[str, Any] | None) -> tuple[Stream, Mark]:
    codec = codec_of(compression, path)
    try:
        stream: Stream = Plain(path) if codec is None else Compressed(path, codec)
    except OSError as error:
        if saved is not None and isinstance(error, FileNotFoundError):
            raise StateError(f"{path!r} is gone, and was not read to its end; put it back, or use --fresh") from None
        raise ConfigError(f"can't open {path!r}: {error.strerror}") from None
    mark = Mark() if saved is None else resumed(stream, saved)
    if isinstance(mark, str):
        stream.close()
        raise StateError(f"{path!r} is not the file that was read: {mark}; put that one back, or use --fresh")
    return stream, mark


def _open_followed(
    path: str,
    saved: Mapping[str, Any] | None,
    clock: Clock,
    warn: Callable[[str], None],
    newer: Callable[[], bool],
) -> Opened | None:
    try:
        stream = Plain(path)
    except FileNotFoundError:
        stream = None
    except OSError as error:
        raise ConfigError(f"can't open {path!r}: {error.strerror}") from None
    mark = Mark()
    if saved is not None:
        found, reason = _continued(path, stream, saved)
        if isinstance(found, str):
            if stream is not None:
                stream.close()
            return _open_rotated(path, found, saved, warn)
        if found is None:
            _tell_missing(path, saved, reason, warn)
        mark = found or mark
    if stream is None:
        return None
    stream.skip_to(mark.offset)
    followed = Followed(path, stream, mark, clock, newer)
    return Opened(path, followed, mark, live=True, stays=True, kept=followed.saved)


def _continued(path: str, stream: Plain | None, saved: Mapping[str, Any]) -> tuple[Mark | str | None, str]:
    """Return where the followed file goes on: at a mark in the file itself, or in one of another name.

    None when it is nowhere; the text says why it isn't the file at its path.
    """
    if stream is None or list(inode_of(os.fstat(stream.fileno()))) != saved.get("inode"):
        rotated = find_rotated(path, saved)
        if rotated is not None:
            return rotated, ""
    reason = "there is none"
    if stream is not None:
        mark = resumed(stream, saved)
        if isinstance(mark, Mark):
            return mark, ""
        reason = mark
    return find_copy(path, saved), reason


def _tell_missing(path: str, saved: Mapping[str, Any], reason: str, warn: Callable[[str], None]) -> None:
    missing = max(saved.get("size", 0) - saved["offset"], 0)
    warn(
        f"{path!r} is not the file that was followed ({reason}), and that one is not in its folder: at least"
        f" {missing:,} bytes behind byte {saved['offset']:,} were not read; goes on at the start of the new file"
    )


def _open_rotated(path: str, found: str, saved: Mapping[str, Any], warn: Callable[[str], None]) -> Opened:
    stream, mark = _open_whole(found, "none", saved)
    kept = {"inode": list(inode_of(os.fstat(stream.fileno()))), "size": saved.get("size", 0)}
    warn(f"{path!r} was rotated to {found!r} while nobody read it; reads that to its end first")
    return Opened(found, Pooled(stream), mark, stays=True, kept=lambda: kept)
