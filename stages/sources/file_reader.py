"""Reads the records of files one after the other, from where a cursor says."""

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from anyio import CancelScope
from anyio.to_thread import run_sync

from pipeline.errors import ConfigError, PipelineError, StageError
from pipeline.stage import Chunk, Progress, Reader, SourceContext
from stages.sources.cutter import RECORDS, Cut, Cutter, LongLine
from stages.sources.file_list import FileList
from stages.sources.followed import POLL, Turn
from stages.sources.formats import Format, Place, bad_record
from stages.sources.marks import HEAD, Mark
from stages.sources.opening import Opened, open_followed, open_piped, open_whole
from stages.sources.paths import is_pipe

__all__ = ("FileReader",)

BLOCK = 2**20
"""Bytes a read: large enough that the hop to a thread does not show."""
_MARKS = (b"\xef\xbb\xbf",)
_LINE_ENDS = (b"\n", b"\r\n")


class FileReader(Reader):
    """Reads files in order; see `FileSource` for what that means.

    A cursor holds the list of files, the index of the one at hand, and a `Mark` in it. The index moves on when the
    next file gives its first record.
    """

    prompt: ClassVar[bool] = True

    def __init__(
        self,
        paths: Sequence[str],
        format: Format,
        context: SourceContext,
        compression: str = "none",
        follow: bool = False,
        *,
        block: int = BLOCK,
        records: int = RECORDS,
    ) -> None:
        self._paths = paths
        self._format = format
        self._context = context
        self._compression = compression
        self._follow = follow
        part: dict[str, Any] = context.partition or {"files": (), "ends": (), "cursor": None}
        self._first: Any = context.cursor if context.cursor is not None else part["cursor"]
        self._ends: dict[str, int | None] = dict(zip(part["files"], part["ends"], strict=True))
        self._before: int = part["cursor"]["offset"] if part["cursor"] is not None else 0
        self._block = block
        self._records = records
        self._list: FileList
        self._opened: Opened | None = None
        self._cutter: Cutter | None = None
        self._least = 0
        self._fresh = True
        self._begun = False
        self._truncations = 0
        self._damage: StageError | None = None

    async def open(self) -> None:
        """Find the files, check that they can be read and are the cursor's, and read the first header."""
        with self._naming():
            self._list = await run_sync(FileList, self._paths, self._first, self._follow)
            if not self._follow and not self._list.piped:
                await self._next_file()

    async def read(self) -> AsyncIterator[Chunk]:
        """Yield chunks of about 256 records, 128 KiB at most."""
        with self._naming():
            while (chunk := await self._next_chunk()) is not None:
                yield chunk
                chunk = None  # or its records would live on while the next are decoded

    def progress(self) -> Progress:
        """Tell how many bytes of the files themselves were read."""
        here = self._opened.input.raw_offset() if self._opened is not None else 0
        ends = [end for end in self._ends.values() if end is not None]
        total = sum(ends) if ends else self._list.total()
        before = self._before
        return Progress(max(self._list.passed + here - before, 0), None if total is None else total - before, "bytes")

    async def close(self) -> None:
        """Close the file at hand."""
        opened, self._opened, self._cutter, self._begun = self._opened, None, None, False
        if opened is not None:
            await opened.input.close()

    # --- chunks -------------------------------------------------------------------------------------------------------

    async def _next_chunk(self) -> Chunk | None:
        while True:
            if not self._begun and not await self._next_file():
                return None
            opened, cutter = self._opened, self._cutter
            if opened is None or cutter is None:
                return None  # it was closed meanwhile
            cut = cutter.cut(self._least)
            if cut is not None:
                if (chunk := self._chunk(opened, cutter, cut)) is not None:
                    return chunk
            elif cutter.ended:
                await self._leave(opened)
            else:
                await self._fill(opened, cutter)

    def _chunk(self, opened: Opened, cutter: Cutter, cut: Cut | LongLine) -> Chunk | None:
        if isinstance(cut, LongLine):
            return self._long_line(opened, cutter, cut)
        decoded = self._format.decode(cut.raw, cut.last)
        # Nothing is complete yet: the same again, with more lines behind.
        self._least = 0 if decoded.used else len(cut.raw)
        place = Place(opened.path, cut.raw, cutter.mark.offset, cutter.mark.line, decoded.starts)
        cutter.move(decoded.used, decoded.lines)
        if not decoded.records:
            return None
        cursor = self._cursor(opened, cutter)
        return Chunk(decoded.records, cursor, size=decoded.used, failed=decoded.failed, position=place)

    def _long_line(self, opened: Opened, cutter: Cutter, long: LongLine) -> Chunk:
        reason = f"the line has {long.size:,} bytes; max_record allows {self._context.max_record:,}"
        place = Place(opened.path, b"", long.offset, long.line, None)
        failed = bad_record(long.head, reason, long.size)
        return Chunk([failed], self._cursor(opened, cutter), size=len(long.head), failed=(0,), position=place)

    def _cursor(self, opened: Opened, cutter: Cutter) -> Callable[[], dict[str, Any]]:
        """Return what makes the cursor, as things are now: hashing for each chunk would cost more than cutting it."""
        done = cutter.ended and cutter.is_empty() and not opened.stays
        files, index, format = self._list.files, self._list.index, self._format.saved()
        return partial(_saved, files, index, cutter.mark.copy(), done, format, opened.kept())

    # --- bytes --------------------------------------------------------------------------------------------------------

    async def _fill(self, opened: Opened, cutter: Cutter) -> None:
        if self._damage is not None:
            raise self._damage
        try:
            block = await opened.input.read(self._block)
        except StageError as error:
            self._damage = error  # raised when the whole lines before it are through
            cutter.go_live()
            return
        if block is Turn.RESTARTED:
            self._tell_truncation(opened, cutter)
            await self.close()
        elif isinstance(block, bytes) and block:
            cutter.feed(block)
        else:
            cutter.end()

    def _tell_truncation(self, opened: Opened, cutter: Cutter) -> None:
        self._truncations += 1
        self._context.warn(
            f"{opened.path!r} was truncated or written anew after byte {cutter.mark.offset:,} (number"
            f" {self._truncations} in this run): goes on from its start; what was written between the last read and"
            " the truncation is lost"
        )

    async def _leave(self, opened: Opened) -> None:
        """Go on behind a file that was read to its end: with its path again when it was rotated, else with the next."""
        # First of all: whoever is cancelled while the file is closed must not find it at hand again.
        if not (opened.stays and self._list.is_last()):
            self._list.advance(opened.input.raw_offset())
        await self.close()

    # --- files --------------------------------------------------------------------------------------------------------

    async def _next_file(self) -> bool:
        """Open the file at hand and read what it begins with; False when there are no more files.

        Goes on where it was when it is cancelled and called again.
        """
        while not self._begun:
            if self._opened is None and not await self._open_next():
                return False
            if self._opened is not None and self._cutter is not None:
                await self._begin(self._opened, self._cutter)
        return True

    async def _open_next(self) -> bool:
        with CancelScope(shield=True):  # no longer than the threads take; else a file would stay open behind us
            path = await run_sync(self._list.at_hand)
            if path is not None:
                self._opened = await self._open(path, self._list.saved)
        if self._opened is not None:
            self._begin_with(self._opened, self._list.saved)
            self._list.saved = None
        elif not self._follow:
            return False
        else:
            await self._context.clock.sleep(POLL)
            await run_sync(self._list.find_newer)
        return True

    async def _open(self, path: str, saved: Mapping[str, Any] | None) -> Opened | None:
        if await run_sync(is_pipe, path):
            return open_piped(path, self._compression)
        if not self._follow:
            return await open_whole(path, self._compression, saved, self._ends.get(path))
        if self._list.is_last():
            return await open_followed(path, saved, self._context.clock, self._context.warn, self._list.find_newer)
        return await open_whole(path, "none", saved)

    def _begin_with(self, opened: Opened, saved: Mapping[str, Any] | None) -> None:
        self._least = 0
        self._fresh = opened.mark.offset == 0
        self._cutter = Cutter(opened.mark, self._context.max_record, live=opened.live, records=self._records)
        if saved is not None and not self._fresh:
            self._format.restore(saved["format"])

    async def _begin(self, opened: Opened, cutter: Cutter) -> None:
        """Make ready to cut: a byte order mark and a header are read; a line end that came late is passed over."""
        if self._fresh:
            await self._pass_over(opened, cutter, _MARKS)
            await self._read_header(opened, cutter)
        elif not cutter.mark.tail.endswith(b"\n"):
            await self._pass_over(opened, cutter, _LINE_ENDS)
        self._begun = self._opened is opened

    async def _pass_over(self, opened: Opened, cutter: Cutter, prefixes: Sequence[bytes]) -> None:
        for prefix in prefixes:
            while (starts := cutter.starts(prefix)) is None and self._opened is opened:
                await self._fill(opened, cutter)
            if starts:
                cutter.move(len(prefix), 0)
                return

    async def _read_header(self, opened: Opened, cutter: Cutter) -> None:
        least = 0
        while self._opened is opened and self._format.heads:
            cut = cutter.cut(least)
            if isinstance(cut, LongLine):
                raise ConfigError(f"{opened.path!r}: its first line has {cut.size:,} bytes, more than max_record")
            if cut is not None:
                try:
                    begun = self._format.begin(cut.raw, cut.last)
                except ValueError as error:
                    raise ConfigError(f"{opened.path!r}: {error}") from None
                if begun is not None:
                    cutter.mark.head_size = max(HEAD, begun[0])
                    return cutter.move(*begun)
                least = len(cut.raw)
            elif cutter.ended:
                return None
            else:
                await self._fill(opened, cutter)
        return None

    @contextmanager
    def _naming(self) -> Generator[None]:
        """Put the stage's name before what it raises."""
        try:
            yield
        except PipelineError as error:
            raise type(error)(f"stage {self._context.name!r}: {error}") from error.__cause__


def _saved(files: Any, index: int, mark: Mark, done: bool, format: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    return {"files": files, "index": index, **mark.saved(), "done": done, "format": format, **kept}
