"""The paths that a sink writes to: which it knows, how a new one begins, and which it may leave out of its position."""

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import msgspec

from pipeline.errors import StateError
from pipeline.stage import NamedFile, SinkContext
from stages.sinks.admission import Admission
from stages.sinks.append_file import AppendFile, FilePoint, fault
from stages.sinks.frames import Frames
from stages.sinks.parts import final_name
from stages.sinks.points import Announced, TargetPoint
from stages.sinks.resumption import Resumption
from stages.sinks.syncs import Syncs
from stages.sinks.target import Target

__all__ = ("Targets",)

KEPT = 200
"""Targets that a position holds although nothing was written to them lately; more are left to their announcements."""


class Targets:
    """The targets of a sink by path, the one written to longest ago first.

    A path that is left out of the position keeps its place here, at the cost of a few hundred bytes: when it is
    written to again it is announced again, with the length that it has then.
    """

    def __init__(
        self,
        context: SinkContext,
        admission: Admission,
        frames: Frames | None,
        syncs: Syncs,
        rolled: bool,
        kept: int = KEPT,
    ) -> None:
        self._context = context
        self._admission = admission
        self._frames = frames
        self._syncs = syncs
        self._rolled = rolled
        self._kept = kept
        self._known: dict[str, Target] = {}
        self._sequences: dict[str, int] = {}
        self._older: dict[str, FilePoint] = {}
        self._named: dict[str, Announced] = {}
        self.turn = 0

    def resume(self, found: Resumption) -> None:
        """Go on where a resumption has brought the files to."""
        self.turn = found.turn
        self._known = found.targets
        self._older = found.older
        self._named = found.named
        self._sequences = found.sequences

    def all(self) -> list[Target]:
        """Return the targets that belong into the position."""
        return list(self._known.values())

    def points(self) -> list[TargetPoint]:
        """Return what the position holds of them."""
        return [target.point() for target in self._known.values()]

    def touch(self, path: str) -> AppendFile:
        """Return the file of a target that is about to be written to, which `admit` has made ready."""
        target = self._known.pop(path)
        self._known[path] = target
        if target.file is None:
            raise LookupError(f"{path} was not admitted")
        return target.file

    def knows(self, path: str) -> bool:
        """Tell whether a target has been checked before."""
        return path in self._known

    async def admit(self, paths: Sequence[str], cuts: int) -> None:
        """Make the files that are missing, and name them in the state before their first byte.

        ``cuts`` is how many cuts were taken so far: one that is being saved meanwhile must not forget these targets.

        :raises StateError: when a file is there that is not ours to write to.
        :raises StorageError, Unavailable: when one can't be made.
        """
        for path in paths:
            if path in self._known:
                self._known[path].touched = cuts
        missing = [path for path in paths if path not in self._known or self._known[path].file is None]
        if not missing:
            return
        made: list[Target] = []
        created: list[str] = []
        try:
            for path in missing:
                target = self._part(path, created) if self._rolled else self._file(path, created, made)
                made.append(target)
            await self._announce(made)
        except BaseException as error:
            for path in created:
                with suppress(OSError):
                    os.unlink(path)
            if isinstance(error, OSError):
                raise fault(error, error.filename or missing[len(made)], "make") from error
            raise
        for target in made:
            target.touched = cuts
            self._known[target.key] = target
            self._sequences[target.key] = target.sequence
            self._older.pop(target.key, None)

    def close_part(self, target: Target) -> str:
        """Let go of the part of a target, and return the name that it is to take."""
        final = final_name(target.key, target.sequence)
        target.file = None
        target.sequence += 1
        self._sequences[target.key] = target.sequence
        return final

    def forget(self, cuts: int) -> None:
        """Leave out of the position what was not written to since so many cuts, beyond those that are kept anyway."""
        for path in list(self._known)[: max(len(self._known) - self._kept, 0)]:
            target = self._known[path]
            if target.touched < cuts and (target.file is None or not self._rolled):
                del self._known[path]
                if target.file is not None:
                    self._older[path] = target.file.point()

    def _part(self, path: str, created: list[str]) -> Target:
        sequence = self._sequences.get(path)
        if sequence is None:
            sequence = self._admission.first_part(path)
        self._syncs.make_folder(os.path.dirname(path))
        file = self._admission.part(path, sequence)
        created.append(file.path)
        self._syncs.folder(os.path.dirname(path))
        return Target(path, file, sequence, self._context.clock.wall())

    def _file(self, path: str, created: list[str], made: Sequence[Target]) -> Target:
        older = self._older.get(path)
        file = AppendFile.behind(older, self._frames) if older is not None else None
        if file is None:
            self._named.pop(path, None)
        if file is None and self._admission.check(path):
            self._check_alone(path, made)
            file = self._admission.adopt(path)
        if file is None:
            self._syncs.make_folder(os.path.dirname(path))
            file = AppendFile.create(path, self._frames)
            created.append(path)
            self._syncs.folder(os.path.dirname(path))
        return Target(path, file)

    def _check_alone(self, path: str, made: Sequence[Target]) -> None:
        found = os.lstat(path)
        others = [target.file for target in chain(self._known.values(), made) if target.file is not None]
        if any(file.inode == (found.st_dev, found.st_ino) for file in others):
            raise StateError(
                f"stage '{self._context.name}': {path} is a file that is already written to under another name; "
                "take one of the names away"
            )

    async def _announce(self, made: Sequence[Target]) -> None:
        if self._context.announce is None:
            return
        self.turn += 1
        named: list[NamedFile] = []
        for target in made:
            if target.file is not None:
                identity = self._identity(target, target.file.point())
                named.append(NamedFile(target.file.path, msgspec.to_builtins(identity), self._context.lineage))
        await self._context.announce(named)

    def _identity(self, target: Target, point: FilePoint) -> Announced:
        if self._rolled:
            return Announced(self.turn, target.key, point, target.sequence, final_name(target.key, target.sequence))
        earlier = self._named.get(target.key)
        identity = earlier.again(self.turn, point) if earlier else Announced(self.turn, target.key, point)
        self._named[target.key] = identity
        return identity
