"""Which files a sink may write to that its state does not know: the modes create, append and overwrite."""

import os
from collections.abc import Collection
from typing import Literal

from pipeline.errors import StateError
from pipeline.stage import SinkContext
from stages.sinks.append_file import AppendFile, FilePoint, digest, inspect, read_tail
from stages.sinks.format import Format
from stages.sinks.frames import Frames
from stages.sinks.parts import final_name, number_of, parts_of, writing_name
from stages.sinks.points import announced_by_others

__all__ = ("Admission", "Mode")

Mode = Literal["create", "append", "overwrite"]

_HEAD = 64 * 2**10


class Admission:
    """Opens files that the state does not know, as the mode allows.

    ``behind``: the lineage was begun with leave to write behind what is there.
    """

    def __init__(
        self,
        context: SinkContext,
        mode: Mode,
        format: Format,
        frames: Frames | None,
        behind: bool,
    ) -> None:
        self._stage = context.name
        self._mode = mode
        self._format = format
        self._frames = frames
        # Without a state nothing resumes: what a crash leaves behind must not get in the way of the next run.
        self._lineage = context.lineage or os.urandom(4).hex()
        self._repeat = context.repeat
        self._behind = behind or not context.saved
        self._others = announced_by_others(context.named, context.lineage)

    def check(self, path: str) -> bool:
        """Tell whether a file is there to be written behind or emptied; False when it must be made.

        :raises StateError: when it is not this lineage's to write to.
        :raises ConfigError: when it is no regular file.
        """
        found = inspect(path)
        if found is not None and found.st_size and self._mode != "overwrite":
            self._allow(path, path in self._others)
        return found is not None

    def check_parts(self, path: str, removed: Collection[str] = ()) -> None:
        """Do the same for the parts of a path, but for some that are about to be removed."""
        parts = [part for part in parts_of(path) if part not in removed]
        if parts and self._mode != "overwrite":
            self._allow(parts[-1], any(part in self._others for part in parts))

    def adopt(self, path: str) -> AppendFile:
        """Return a file that is there, emptied if the mode says so, to be written behind what it holds."""
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if self._mode == "overwrite":
                os.ftruncate(fd, 0)
            found = os.fstat(fd)
            if found.st_size:
                head = os.pread(fd, _HEAD, 0)
                if self._frames is not None:
                    self._check_frames(path, self._frames.whole(file, 0), found.st_size)
                    head = self._frames.unpack(head)
                self._format.learn(head, path)
            tail = read_tail(fd, found.st_size)
        point = FilePoint(path, (found.st_dev, found.st_ino), found.st_size, digest(tail))
        return AppendFile(point, tail, self._frames)

    def first_part(self, path: str) -> int:
        """Return the number of the first part to write; older ones are taken away when the mode is overwrite."""
        self.check_parts(path)
        parts = parts_of(path)
        if self._mode == "overwrite":
            for part in parts:
                os.unlink(part)
            return 1
        return number_of(path, parts[-1]) + 1 if parts else 1

    def part(self, path: str, sequence: int) -> AppendFile:
        """Return a new part, empty.

        :raises StateError: when there already is a part of that number.
        """
        final = final_name(path, sequence)
        if os.path.lexists(final):
            raise StateError(
                f"stage '{self._stage}': {final} exists, and it is the name of the next part; "
                "move it away, or choose another path"
            )
        name = writing_name(path, sequence, self._lineage)
        try:
            return AppendFile.create(name, self._frames)
        except FileExistsError:
            # Made just before a crash, and never announced: nothing of it counts.
            os.unlink(name)
            return AppendFile.create(name, self._frames)

    def _allow(self, path: str, of_another: bool) -> None:
        if of_another and not self._repeat:
            raise StateError(
                f"stage '{self._stage}': {path} holds records of an earlier lineage of this pipeline, which would be "
                "written again; move it away, choose another path or mode: overwrite, or accept that with --repeat"
            )
        if not of_another and not (self._mode == "append" and self._behind):
            ways = "another path or mode: overwrite" if self._mode == "append" else "mode: append, overwrite"
            behind = "run with --fresh to append behind it" if self._mode == "append" else "or another path"
            raise StateError(
                f"stage '{self._stage}': {path} is not empty and the state knows nothing of it, so it is left alone; "
                f"move it away, choose {ways}, {behind}"
            )

    def _check_frames(self, path: str, whole: int, size: int) -> None:
        if whole != size:
            raise StateError(
                f"stage '{self._stage}': {path} can't be written behind: its compressed data is whole up to byte "
                f"{whole} of {size} only; move it away"
            )
