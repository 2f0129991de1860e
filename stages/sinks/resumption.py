"""Bringing the files of a sink back to a checkpoint: everything is verified before anything is changed."""

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.errors import StateError
from pipeline.stage import SinkContext
from stages.sinks.append_file import AppendFile, FilePoint, digest, inspect, is_copy, read_tail
from stages.sinks.format import Format
from stages.sinks.frames import Frames
from stages.sinks.parts import final_name, leftovers, path_of
from stages.sinks.points import Announced, Closing, FilesPosition, TargetPoint, announced
from stages.sinks.target import Target
from stages.sinks.templates import Template

__all__ = ("Resumption", "finish")

_BLOCK = 2**20


class Resumption:
    """What a position and the announcements behind it say about files, compared with what is there.

    `verify` looks and changes nothing; `apply` cuts back, finishes parts and takes away what does not count. After
    that, ``targets``, ``closing`` (parts to finish with the next cut, whose files are ``recovered``), ``sequences``
    (next part of each path), ``older`` (files that the position left to their announcements), ``named`` (the last
    announcement of each file) and ``turn`` are where the sink goes on, ``folders`` are the ones in which names change,
    and ``removed`` the files that are taken away.
    """

    def __init__(self, context: SinkContext, position: FilesPosition, format: Format, frames: Frames | None) -> None:
        self._context = context
        self._exact = context.delivery == "exactly_once"
        self._position = position
        self._format = format
        self._frames = frames
        self._announced = announced(context.named, context.lineage)
        self._actions: list[Callable[[], None]] = []
        self._known: set[str] = set()
        self.targets: dict[str, Target] = {}
        self.closing: list[Closing] = []
        self.recovered: list[AppendFile] = []
        self.sequences: dict[str, int] = {}
        self.older: dict[str, FilePoint] = {}
        self.named = {one.key: one for one in self._announced if not one.final}
        self.folders: set[str] = set()
        self.removed: set[str] = set()
        self.turn = max([position.turn, *(one.turn for one in self._announced)])

    def verify(self, template: Template, rolled: bool) -> None:
        """Compare everything, and look for parts that nobody knows where the sink would write them.

        :raises StateError: names the first file that does not fit, what was expected and found, and the ways out.
        """
        for one in self._announced:
            if one.turn <= self._position.turn:
                if one.final:
                    self._number(one.key, one.sequence + 1)
                else:
                    self.older[one.key] = one.base
        for target in self._position.targets:
            self._target(target)
        for closing in self._position.closing:
            self._finished(closing)
        for one in self._announced:
            if one.turn > self._position.turn and one.base.path not in self._known:
                if one.final:
                    self._part_since(one)
                else:
                    self._file_since(one)
        if rolled and self._context.lineage:
            self._leftovers(template)

    def apply(self) -> None:
        """Do what `verify` has found to be due."""
        for action in self._actions:
            action()

    # --- what the position knows --------------------------------------------------------------------------------------

    def _target(self, target: TargetPoint) -> None:
        point = target.file
        if point is None:
            self._number(target.key, target.sequence)
            return
        self._known.add(point.path)
        path = point.path
        if not os.path.lexists(path):
            # With an older checkpoint, the part that was open then may have been finished since.
            path = final_name(target.key, target.sequence)
            if path != point.path and not self._same(path, point):
                raise self._differs(point.path, f"{point.length} bytes", "no file")
            if not self._exact:
                self._number(target.key, target.sequence + 1)
                return
            self._act(lambda: os.rename(path, point.path), point.path)
        file = self._resumed(path, point)
        self.targets[target.key] = Target(target.key, file, target.sequence, target.opened)
        self._number(target.key, target.sequence)

    def _finished(self, closing: Closing) -> None:
        part = closing.part
        self._known.add(part.path)
        if not os.path.lexists(part.path):
            return
        self._resumed(part.path, part)
        self._check_final(part, closing.final)
        self._act(lambda: finish(closing), part.path)

    # --- what was announced since -------------------------------------------------------------------------------------

    def _file_since(self, one: Announced) -> None:
        if not self._same(one.base.path, one.base):
            return
        base = one.base_at(self._position.turn)
        if base is None:
            raise StateError(
                f"stage '{self._context.name}': {one.base.path} can't be cut back to this checkpoint: how long it was "
                "then is not kept that far back; go back to a newer checkpoint or a much older one"
            )
        self._known.add(base.path)
        self.targets[one.key] = Target(one.key, self._resumed(base.path, base))

    def _part_since(self, one: Announced) -> None:
        path = one.base.path
        if self._exact:
            for name in (path, one.final):
                if self._same(name, one.base):
                    self._remove(name)
            return
        self._number(one.key, one.sequence + 1)
        if self._same(path, one.base):
            self._known.add(path)
            file = self._resumed(path, one.base)
            self.recovered.append(file)
            self.closing.append(Closing(file.point(), one.final if file.length else ""))

    def _leftovers(self, template: Template) -> None:
        # Other sinks may write their parts to the same folder, and this one may have had another path before.
        kept = self._known.union(file.path for file in self._context.named)
        for part in leftovers(template.folder, bool(template.fields), self._context.lineage):
            path = path_of(part, self._context.lineage)
            if part not in kept and path is not None and template.could_make(path):
                self._remove(part)

    # --- one file -----------------------------------------------------------------------------------------------------

    def _resumed(self, path: str, point: FilePoint) -> AppendFile:
        """Verify the file and plan its cut; return it as it will be."""
        found = inspect(path)
        if found is None:
            raise self._differs(path, f"{point.length} bytes", "no file")
        inode = (found.st_dev, found.st_ino)
        if inode != point.inode and not is_copy(point, found):
            raise self._differs(path, "the file that was written", "another file of that name")
        if found.st_size < point.length:
            raise self._differs(path, f"at least {point.length} bytes", f"{found.st_size}")
        with open(path, "rb") as file:
            if digest(read_tail(file.fileno(), point.length)) != point.tail:
                raise self._differs(path, f"the same content before byte {point.length}", "other content")
            length = point.length if self._exact else self._whole(file, point.length)
            tail = read_tail(file.fileno(), length)
        if length < found.st_size:
            self._actions.append(lambda: self._cut(point, length, found.st_size))
        return AppendFile(FilePoint(point.path, inode, length), tail, self._frames)

    def _whole(self, file: BinaryIO, start: int) -> int:
        if self._frames is not None:
            return self._frames.whole(file, start)
        file.seek(start)
        return start + self._format.whole(_blocks(file))

    def _cut(self, point: FilePoint, length: int, size: int) -> None:
        fd = os.open(point.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, length)
        finally:
            os.close(fd)
        what = "written after the last checkpoint" if self._exact else "of a torn last record"
        self._context.warn(f"{point.path}: cut back {size - length} bytes {what}")

    def _remove(self, path: str) -> None:
        self.removed.add(path)
        self._act(lambda: os.unlink(path), path)
        self._actions.append(lambda: self._context.warn(f"{path}: removed, begun after the last checkpoint"))

    def _act(self, action: Callable[[], None], path: str) -> None:
        self._actions.append(action)
        self.folders.add(os.path.dirname(path))

    def _number(self, key: str, sequence: int) -> None:
        self.sequences[key] = max(self.sequences.get(key, 1), sequence)

    def _check_final(self, part: FilePoint, final: str) -> None:
        if final and os.path.lexists(final):
            raise self._differs(final, f"no file, for {part.path} takes this name", "one")

    def _same(self, path: str, point: FilePoint) -> bool:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == point.inode

    def _differs(self, path: str, expected: str, found: str) -> StateError:
        return StateError(
            f"stage '{self._context.name}': {path} does not fit the last checkpoint: expected {expected}, found "
            f"{found}; put the file back as it was, or begin anew with --fresh"
        )


def finish(closing: Closing) -> None:
    """Give a part its final name, never over another file; a part without one is taken away."""
    if not closing.final:
        os.unlink(closing.part.path)
        return
    if os.path.lexists(closing.final):
        raise StateError(
            f"{closing.final} exists, and {closing.part.path} was to take this name; move one of them away"
        )
    os.rename(closing.part.path, closing.final)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
