"""What sources of files have in common: their keys."""

import codecs
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Annotated, Any, Literal

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.stage import FilePaths, Partition, Reader, Source, SourceContext, key
from stages.sources.compressed import is_compressed
from stages.sources.cutter import RECORDS
from stages.sources.dividing import Rows, divide_files, known_ends
from stages.sources.file_reader import FileReader
from stages.sources.formats import Format
from stages.sources.paths import check_file, find_files, is_pipe

__all__ = ("FileSource", "encoding_of")


class FileSource(Source, kw_only=True):
    """Declares files whose lines are records.

    A list or a glob is read in order, a glob in the order of names; files that come later come behind. With ``follow``
    the last file is read as it grows, past rotation and truncation; those before it are read to their ends. A
    file that takes its name and is renamed again within half a second, or between two runs, is never seen.
    """

    path: Annotated[FilePaths, key("A file, a list of files, or a glob; `-` is standard input.", file=True)]
    compression: Annotated[
        Literal["auto", "none", "gzip", "zstd"], key("Compression; auto goes by the suffix, .gz or .zst.")
    ] = "auto"
    follow: Annotated[bool, key("Read on as the file grows; never ends by itself.")] = False
    encoding: Annotated[str, key("Encoding of the text; one that agrees with ASCII.")] = "utf-8"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Return what is wrong with the keys."""
        if not self.path or "" in self.paths() or any("\0" in path for path in self.paths()):
            yield "path", "expected a file, a list of files, or a glob"
        if self.follow and "-" in self.paths():
            yield "follow", "standard input can't be followed; it is read as it comes"
        if self.follow and any(is_compressed(self.compression, path) for path in self.paths()):
            yield "follow", "a compressed file can't be followed; read it when it is complete"
        try:
            encoding_of(self.encoding)
        except ValueError as error:
            yield "encoding", str(error)

    def paths(self) -> Sequence[str]:
        """Return the paths and globs as a list."""
        return [fspath(path) for path in ([self.path] if isinstance(self.path, str | PathLike) else self.path)]

    def identity(self) -> Mapping[str, Any]:
        """Return the path and what decides where a record ends."""
        return {"path": self.path, "encoding": encoding_of(self.encoding)}

    def replays(self) -> bool:
        """Tell whether all of it can be read again; a pipe can't."""
        return not any(map(is_pipe, self.paths()))

    def endless(self) -> bool:
        """Tell whether it is followed."""
        return self.follow

    def indivisible(self) -> str | None:
        """Return why it can't be read in partitions: because nobody knows where it ends."""
        if self.follow:
            return "it is followed, and what grows has no parts; leave out follow"
        return None if self.replays() else "a pipe is read once, as it comes"

    def divide(self, size: int, known: Sequence[Partition]) -> list[Partition]:
        """Return ranges of large files, and small ones together; of a compressed file the whole."""
        files = find_files(self.paths())
        ends = known_ends(known)
        for path in files:
            if path not in ends:
                check_file(path)
        if not files and not known:
            raise ConfigError(f"no file matches {', '.join(map(repr, self.paths()))}")
        packed = frozenset(path for path in files if is_compressed(self.compression, path))
        there = [path for path in files if os.path.exists(path)]
        context = SourceContext("", "", SystemClock())
        return divide_files(there, packed, size, ends, self.format(context), self.rows(), context.max_record)

    def rows(self) -> Rows | None:
        """Return how rows are told from lines, None where each line is a record."""
        return None

    def format(self, context: SourceContext) -> Format:
        """Return what turns lines into records, for one run."""
        raise NotImplementedError

    def records_in_chunk(self) -> int:
        """Return about how many records are read at a time."""
        return RECORDS

    async def open(self, context: SourceContext) -> Reader:
        """Begin to read behind the cursor.

        :raises ConfigError: when a file isn't there or can't be read.
        :raises StateError: when a file isn't the one that the cursor belongs to.
        """
        problems = [f"stage {context.name!r}: {name}: {text}" for name, text in self.problems()]
        if problems:
            raise ConfigError(*problems)
        part = context.partition
        paths = self.paths() if part is None else part["files"]
        records = self.records_in_chunk()
        reader = FileReader(paths, self.format(context), context, self.compression, self.follow, records=records)
        try:
            await reader.open()
        except BaseException:
            await reader.close()
            raise
        return reader


def encoding_of(name: str) -> str:
    """Return the encoding's own name; ``utf-8`` also where a byte order mark is asked for: one is always skipped.

    :raises ValueError: for an unknown one, and for one in which a newline is not the byte 10.
    """
    try:
        found = codecs.lookup(name).name
        ascii_alike = bytes(range(128)).decode(found) == "".join(map(chr, range(128)))
    except (LookupError, ValueError, TypeError):
        raise ValueError(f"{name!r} is no encoding of text that can be read by lines; try utf-8 or latin-1") from None
    if not ascii_alike:
        raise ValueError(f"{name!r} can't be cut into lines of bytes; convert the file to utf-8 first (iconv)")
    return "utf-8" if found == "utf-8-sig" else found
