"""Quantiles of many numbers in little room: counts in buckets that are two percent wide.

The same idea as DDSketch (Masson, Rim and Lee 2019): a bucket for each power of a base makes the error relative, and
sketches of parts add up to the sketch of the whole.
"""

import math
from math import ceil, log

__all__ = ("Sketch",)

_STEP = math.log(1.02)
_TINY = 1e-9


class Sketch:
    """Counts positive numbers; anything below a billionth counts as that."""

    __slots__ = ("count", "counts", "largest")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.count = 0
        self.largest = 0.0

    def add(self, value: float) -> None:
        """Count one number."""
        place = ceil(log(value if value > _TINY else _TINY) / _STEP)
        counts = self.counts
        counts[place] = counts.get(place, 0) + 1
        self.count += 1
        if value > self.largest:
            self.largest = value

    def merge(self, other: "Sketch") -> None:
        """Count what another one has counted."""
        for place, count in other.counts.items():
            self.counts[place] = self.counts.get(place, 0) + count
        self.count += other.count
        self.largest = max(self.largest, other.largest)

    def quantile(self, share: float) -> float:
        """Return the number that this share (0 to 1) of all is at or below, within 1 %; 0 before the first."""
        wanted = share * self.count
        seen = 0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= wanted:
                # The middle of the bucket, which no number may exceed.
                return min(math.exp((place - 0.5) * _STEP), self.largest)
        return 0.0
