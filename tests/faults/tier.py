"""What tier L is made of: rows of runs, done in stretches, with what they should take."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.row import Row

__all__ = ("LongRow", "Plan", "Stretch")

Stretch = Callable[[Row, int, int], None]
"""Does some runs of a row: takes the row, the number of the first run and how many."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: ``scale`` is the share of the runs to do, each ``step``-th system call."""

    seed: int = 1
    scale: float = 1.0
    step: int = 1
    soak_seconds: float = 1200.0
    data: Path | None = None

    def runs(self, number: int) -> int:
        """Return how many runs of a row with so many are done."""
        return max(round(number * self.scale), 1)


@dataclass(frozen=True, slots=True)
class LongRow:
    """A row of ``runs`` in stretches of ``size``; ``begin`` sets up a folder for all of them.

    ``each`` is how many seconds one of its runs takes on an idle core, as it was measured. A row that ``waits`` more
    than it works is done beside the others and takes no place of theirs.
    """

    name: str
    runs: int
    size: int
    begin: Callable[[Path], Stretch]
    each: float = 1.7
    waits: bool = False

    @property
    def seconds(self) -> float:
        """How long all of it should take."""
        return self.runs * self.each

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Yield first run and number of each stretch."""
        for first in range(0, self.runs, self.size):
            yield first, min(self.size, self.runs - first)
