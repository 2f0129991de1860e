"""Sinks that append records to files: their keys, and the writer that they share."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import fspath
from typing import Annotated, Any

from msgspec import Meta, structs

from pipeline.errors import ConfigError
from pipeline.stage import Declared, Duration, FilePath, Parting, Resume, Sink, SinkContext, Size, Writer, key
from stages.sinks.admission import Mode
from stages.sinks.file_writer import FileWriter
from stages.sinks.format import Format
from stages.sinks.frames import Compression, frames_for
from stages.sinks.parts import numbered
from stages.sinks.templates import Template

__all__ = ("FileSink", "Roll")


class Roll(Declared, kw_only=True, forbid_unknown_fields=True):
    """When a part is finished and the next one begun."""

    size: Annotated[Size | None, key("Finish a part at the first checkpoint after it has this many bytes.")] = None
    age: Annotated[Duration | None, key("Finish a part at the first checkpoint after it is this old.")] = None


class FileSink(Sink, kw_only=True):
    """What the sinks `jsonl`, `csv` and `lines` have in common."""

    path: Annotated[
        FilePath,
        Meta(min_length=1),
        key(
            "File to write. Fields in braces make a file for each of their values: out/{country}/{day}.jsonl.",
            file=True,
        ),
    ]
    mode: Annotated[
        Mode,
        key("What happens to content that the state does not know: create refuses it, append, overwrite."),
    ] = "create"
    roll: Annotated[Roll | None, key("Write numbered parts: finish one by size or age and begin the next.")] = None
    compression: Annotated[Compression, key("none, gzip or zstd; auto goes by the suffix .gz or .zst.")] = "auto"

    def format(self, context: SinkContext) -> Format:
        """Return how records become the bytes of a file."""
        raise NotImplementedError

    def resumes(self) -> Resume:
        """Files are cut back to the position of the last checkpoint."""
        return Resume.POSITION

    def identity(self) -> Mapping[str, Any]:
        """Return what decides which files there are and what is in them."""
        return {"path": self.path, "compression": self.compression, "roll": self.roll is not None}

    def parting(self, merge: bool) -> Parting | str:
        """Return that partitions have files of their own, merged where they are not numbered parts."""
        return Parting.MERGED if merge and self.roll is None else Parting.APART

    def for_partition(self, number: int, lineage: str, hidden: bool) -> "FileSink":
        """Return the sink of a partition: in a hidden folder, or under names with its number."""
        if not hidden:
            return structs.replace(self, path=numbered(fspath(self.path), number))
        folder, rest = self._within_folder()
        # What was there before is the merge's affair.
        return structs.replace(self, path=os.path.join(_hidden(folder, lineage, number), rest), mode="create")

    def discard_partition(self, number: int, lineage: str) -> None:
        """Take away the hidden folder of a partition, and the one around it when it was the last."""
        import shutil  # takes every module of archives along, and only a run by workers comes here

        place = _hidden(self._within_folder()[0], lineage, number)
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(os.path.dirname(place))

    def _within_folder(self) -> tuple[str, str]:
        """Return the folder that is the same for all records, and the rest of the path."""
        path = fspath(self.path)
        folder = Template(path).folder
        return folder, os.path.relpath(path, folder) if folder else path

    def problems(self) -> Iterable[tuple[str, str]]:
        """Say what is wrong with the keys."""
        try:
            Template(fspath(self.path))
        except ValueError as error:
            yield "path", str(error)
        if fspath(self.path).endswith("/"):
            yield "path", f"expected a file, found the folder {self.path!r}"
        if self.roll is not None and not self.roll.size and not self.roll.age:
            yield "roll", "expected a size above zero, an age or both"
        try:
            frames_for(self.compression, fspath(self.path))
        except ConfigError as error:
            yield "compression", str(error)

    async def open(self, context: SinkContext) -> Writer:
        """Bring the files back to the last checkpoint, and make ready to write behind it.

        :raises StateError: when a file does not fit the checkpoint, or is not this pipeline's to write to.
        :raises ConfigError: when a key is wrong, or the path is no regular file.
        """
        problems = [f"stage '{context.name}': {name}: {text}" for name, text in self.problems()]
        if problems:
            raise ConfigError(*problems)
        writer = FileWriter(
            context,
            Template(fspath(self.path)),
            self.format(context),
            frames_for(self.compression, fspath(self.path)),
            mode=self.mode,
            roll=(self.roll.size, self.roll.age) if self.roll else None,
        )
        await writer.open()
        return writer


def _hidden(folder: str, lineage: str, number: int) -> str:
    return os.path.join(folder, f".partitions-{lineage[:8]}", f"{number:06d}")
