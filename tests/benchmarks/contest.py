"""What a benchmark is made of: workloads, the peers that do them, what was measured, and the goals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ("Answer", "Goal", "Measured", "Own", "Peer", "Results", "Task", "Workload", "best", "ratio")

Answer = tuple[int, str]
"""How many records came out, and a checksum of them."""


@dataclass(frozen=True, slots=True)
class Own:
    """An answer of a peer that took the time itself: from its first call to the end of its last."""

    answer: Answer
    seconds: float


@dataclass(frozen=True, slots=True)
class Task:
    """What one peer is asked: so many records, with a folder of its own to work in and one with the input."""

    records: int
    folder: Path
    inputs: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to do a workload. ``run`` does it; what it returns is its answer, unless the workload looks itself."""

    name: str
    run: Callable[[Task], Answer | Own | None]
    needs: Sequence[str] = ()
    """Modules without which it is skipped."""
    missing: Callable[[], str | None] = lambda: None
    """Why it can't run here."""
    times: int = 1
    """How many times the records of the workload it gets."""
    every: bool = True
    """False: twice are enough, however many rounds are asked for."""
    ideal: Callable[[int], float] | None = None
    """Seconds that so many records take at least; then the share of it is shown."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one peer: seconds, seconds of processor time, peak memory in MB, and the answer."""

    seconds: float
    processor: float
    peak: float
    answer: Answer


Results = dict[str, list[Measured]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach, and one that must not be missed; ``least`` says that more is better."""

    text: str
    figure: Callable[[Results, int], float]
    reach: float
    floor: float
    least: bool = True

    def verdict(self, figure: float) -> str:
        """Return how a figure stands to the goal."""
        sign = 1 if self.least else -1
        if sign * figure >= sign * self.reach:
            return "reached"
        return "above the floor" if sign * figure >= sign * self.floor else "MISSED"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of work, the same for all its peers; the first of them is what the others are compared with."""

    name: str
    title: str
    records: int
    peers: Sequence[Peer]
    prepare: Callable[[Path, int], None] = lambda folder, records: None
    """Makes the input, once."""
    answer: Callable[[Path], Answer] | None = None
    """Reads what a peer left in its folder."""
    goals: Sequence[Goal] = field(default_factory=list[Goal])
    fewest: int = 100


def best(runs: Sequence[Measured], processor: bool = False) -> float:
    """Return the fewest seconds of some runs: what other work on the machine adds is not the peer's."""
    return min(run.processor if processor else run.seconds for run in runs)


def ratio(peer: str, other: str, processor: bool = False) -> Callable[[Results, int], float]:
    """Return how many times as fast as another a peer is."""
    return lambda results, records: best(results[other], processor) / best(results[peer], processor)
