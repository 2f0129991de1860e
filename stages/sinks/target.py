"""Where the records of one path go while a sink is open."""

from dataclasses import dataclass

from stages.sinks.append_file import AppendFile
from stages.sinks.points import TargetPoint

__all__ = ("Target",)


@dataclass(slots=True, eq=False)
class Target:
    """The file of a path, or with ``roll`` the open part of it. ``sequence`` is the number of that part or the next.

    ``touched`` counts the cuts that were taken before it was written to last.
    """

    key: str
    file: AppendFile | None = None
    sequence: int = 1
    opened: float = 0.0
    touched: int = 0

    def point(self) -> TargetPoint:
        """Return what a checkpoint keeps of it."""
        return TargetPoint(self.key, self.file.point() if self.file else None, self.sequence, self.opened)
