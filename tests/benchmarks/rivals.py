"""Published rules for the size of a batch, with their published constants, behind the interface of our laws.

Each only chooses sizes: none says anything about how long a batch may wait.
"""

import math
from collections import deque
from collections.abc import Mapping
from statistics import median

from pipeline.control.law import Change, Observation

__all__ = ("Aimd", "DasFixedPoint", "Faucet", "Guide", "Rule")


class Rule:
    """A rule that goes from one batch's size and seconds to the next size."""

    smallest, largest, start = 1, 10_000, 1

    def __init__(self, target: float) -> None:
        self.target = target
        self.limit = self.start
        self.max_bytes: int | None = None
        self.permits: int | None = None

    def next(self, size: int, seconds: float) -> float:
        """Return the next size, not yet rounded or bounded."""
        raise NotImplementedError

    def linger(self, size: int) -> float:
        """Return infinity."""
        return math.inf

    def expects(self, remaining: float) -> bool:
        """Say yes."""
        return True

    def arrived(self, count: int, now: float) -> None:
        """Do nothing."""

    def observe(self, seen: Observation) -> list[Change]:
        """Go to the next size."""
        before = self.limit
        self.limit = math.floor(max(self.smallest, min(self.next(seen.size, seen.service), self.largest)))
        return [Change(before, self.limit, "rule")] if self.limit != before else []

    def learned(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def restore(self, learned: Mapping[str, object]) -> bool:
        """Return False."""
        return False

    def status(self) -> dict[str, float]:
        """Return the limit."""
        return {"limit": self.limit}


class Guide(Rule):
    """The pgqrs guide: half as much again below half the target, two thirds above twice the target, from 50.

    Its cap of 500 is lifted, which only helps it here.
    """

    smallest, start = 10, 50

    def next(self, size: int, seconds: float) -> float:
        """Step by the guide's factors."""
        if seconds < self.target / 2:
            return self.limit * 3 // 2
        return self.limit * 2 // 3 if seconds > 2 * self.target else self.limit


class Aimd(Rule):
    """Clipper (NSDI 2017): a constant more until a batch is over the target, then a tenth less."""

    def next(self, size: int, seconds: float) -> float:
        """Add 4, or back off by a tenth."""
        return self.limit * 0.9 if seconds > self.target else self.limit + 4


class DasFixedPoint(Rule):
    """Das et al. (SoCC 2014): the fixed point of time = 0.8 x target.

    And a quarter less than the smaller of two where cost is superlinear.
    """

    def __init__(self, target: float) -> None:
        super().__init__(target)
        self._last: tuple[int, float] | None = None

    def next(self, size: int, seconds: float) -> float:
        """Solve for the size as if time were proportional to it."""
        last, self._last = self._last, (size, seconds)
        if last is not None and last[0] != size:
            (small, fast), (large, slow) = sorted((last, (size, seconds)))
            if slow / large > fast / small and slow > 0.8 * self.target:
                return 0.75 * small
        return size * 0.8 * self.target / seconds


class Faucet(Rule):
    """faucet-stream: 250 more below half the target.

    Half above 1.2 targets, by the median of 10, with a rest of 5 batches between steps.
    """

    smallest, largest, start = 100, 50_000, 100

    def __init__(self, target: float) -> None:
        super().__init__(target)
        self._recent: deque[float] = deque(maxlen=10)
        self._rest = 0

    def next(self, size: int, seconds: float) -> float:
        """Step by the median of the last ten."""
        self._recent.append(seconds)
        self._rest -= 1
        middle = median(self._recent)
        if self._rest > 0 or 0.5 * self.target <= middle <= 1.2 * self.target:
            return self.limit
        self._rest = 5
        return self.limit + 250 if middle < 0.5 * self.target else self.limit * 0.5
