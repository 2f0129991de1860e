"""What a checkpoint and the state file keep about the files of a sink."""

from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.errors import StateError
from pipeline.stage import NamedFile
from stages.sinks.append_file import FilePoint

__all__ = (
    "Announced",
    "Closing",
    "FilesPosition",
    "TargetPoint",
    "announced",
    "announced_by_others",
    "decode_position",
)


class TargetPoint(msgspec.Struct, frozen=True):
    """Where records of one path go: the file itself, or with ``roll`` the part that is open, if one is.

    ``key`` is the path as it was rendered. ``sequence`` is the number of the next part, ``opened`` the wall time at
    which the open one was begun.
    """

    key: str
    file: FilePoint | None = None
    sequence: int = 1
    opened: float = 0.0


class Closing(msgspec.Struct, frozen=True):
    """A part that is finished and takes its final name once that is saved; an empty name takes it away."""

    part: FilePoint
    final: str


class FilesPosition(msgspec.Struct, frozen=True):
    """The position of a file sink. ``turn`` counts the announcements that came before it; ``memory`` is the format's.

    ``behind`` remembers that this lineage was begun with leave to write behind what other files held.
    """

    turn: int = 0
    targets: list[TargetPoint] = []
    closing: list[Closing] = []
    memory: Any = None
    behind: bool = False


class Announced(msgspec.Struct, frozen=True):
    """The identity of a `NamedFile`: the file as it was before this lineage's first byte, and what it is for.

    ``final`` is the name a part takes when it is finished. A file that was left out of the position is announced again
    with the length it has then, and that takes the place of the earlier announcement: ``previous`` is the turn of that
    one, ``first_turn`` and ``first_base`` are what the first one said.
    """

    turn: int
    key: str
    base: FilePoint
    sequence: int = 0
    final: str = ""
    previous: int = 0
    first_turn: int = 0
    first_base: FilePoint | None = None

    def again(self, turn: int, base: FilePoint) -> "Announced":
        """Return the next announcement of the file."""
        first_base = self.first_base or self.base
        return Announced(
            turn,
            self.key,
            base,
            previous=self.turn,
            first_turn=self.first_turn or self.turn,
            first_base=first_base,
        )

    def base_at(self, turn: int) -> FilePoint | None:
        """Return what the file was at a position of an earlier turn; None when that is not known any more."""
        if turn >= self.previous:
            return self.base
        return self.first_base if turn < self.first_turn else None


def decode_position(position: Any, stage: str) -> FilesPosition:
    """Return the position of a checkpoint; an empty one when there is none.

    :raises StateError: when it is not one of a file sink.
    """
    if position is None:
        return FilesPosition()
    try:
        return msgspec.convert(position, FilesPosition)
    except msgspec.ValidationError as error:
        raise StateError(f"stage '{stage}': the saved position is not one of a file sink: {error}") from None


def announced(named: Iterable[NamedFile], lineage: str) -> list[Announced]:
    """Return what a lineage has announced, in the order of the announcements."""
    found = [one for file in named if file.lineage == lineage and (one := _decode(file)) is not None]
    return sorted(found, key=lambda one: one.turn)


def announced_by_others(named: Iterable[NamedFile], lineage: str) -> set[str]:
    """Return the files and finished parts that other lineages have written."""
    found: set[str] = set()
    for file in named:
        if file.lineage != lineage:
            one = _decode(file)
            found.add(one.final or file.path if one else file.path)
    return found


def _decode(file: NamedFile) -> Announced | None:
    try:
        return msgspec.convert(file.identity, Announced)
    except msgspec.ValidationError:
        return None  # a sink of another kind had this name before
