"""Notices that a ratio which should hover around 1 has moved, or spreads wider: cumulative sums (Page's CUSUM)."""

__all__ = ("MOST", "Drift", "Widening")

_CLIP = 2.5  # one outlier, however large, adds no more than this
_ALLOWANCE = 0.75  # deviations smaller than this, in standard deviations, are noise
MOST = _CLIP - _ALLOWANCE
"""What one value adds to a sum at most."""

_USUAL_MISSES = 0.15  # three times the share expected beyond each end of the range
_MISSES = 1.6
_CAP = 2.2  # a burst beyond one end counts for as long as three values do


class Drift:
    """Sums deviations up and down, each floored at 0, and raises an alarm when one sum passes a threshold."""

    def __init__(self) -> None:
        self._sums = [0.0, 0.0]
        self._counts = [0, 0]

    def push(self, deviation: float, threshold: float) -> int:
        """Add a deviation in standard deviations; return 0, or on an alarm how many values it is made of: positive if
        up, negative if down.

        These are the values since the sum last left 0, so all of them are likely to come from after the change. An
        alarm starts both sums anew.
        """
        clipped = max(-_CLIP, min(_CLIP, deviation))
        for side, signed in enumerate((clipped, -clipped)):
            self._sums[side] = max(0.0, self._sums[side] + signed - _ALLOWANCE)
            self._counts[side] = self._counts[side] + 1 if self._sums[side] > 0.0 else 0
        up, down = self._sums
        if max(up, down) <= threshold:
            return 0
        alarm = self._counts[0] if up >= down else -self._counts[1]
        self.clear()
        return alarm

    def clear(self) -> None:
        """Start both sums anew."""
        self._sums = [0.0, 0.0]
        self._counts = [0, 0]


class Widening:
    """Counts values beyond either end of their usual range of nine in ten, and raises an alarm when both are frequent.

    Both, because a change of the level, or outliers, only cross one.
    """

    def __init__(self) -> None:
        self._above = self._below = 0.0

    def push(self, above: bool, below: bool) -> bool:
        """Add a value that was above the range, below it, or neither; return whether the range is no longer theirs."""
        self._above = min(_CAP, max(0.0, self._above + above - _USUAL_MISSES))
        self._below = min(_CAP, max(0.0, self._below + below - _USUAL_MISSES))
        if min(self._above, self._below) <= _MISSES:
            return False
        self.clear()
        return True

    def clear(self) -> None:
        """Start both counts anew."""
        self._above = self._below = 0.0
