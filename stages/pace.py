"""Whether a unit of work is brief enough for the thread of the event loop, by the time that the last ones took."""

import math

__all__ = ("BRIEF", "Pace")

BRIEF = 0.005
"""Seconds that the loop may be held up at a time: as long as the engine itself works before others get a turn."""
_COMMIT = 50
"""A unit of no size takes about as long as one of this size takes beyond that: a commit costs what 50 rows do."""
_LONGEST = 256
"""Units that are kept off the loop, at most, before one is tried there again."""


class Pace:
    """Predicts how long a unit takes from its size and the last one; it is told the times, and knows no clock.

    A unit in the loop that took too long keeps the next one off it, and each further one twice as many: what waits for
    a slow disk shows in no computing time, and only so is it seldom the loop that waits.
    """

    def __init__(self) -> None:
        self._each = math.inf
        self._off = 0
        self._sentence = 1

    def seconds(self, size: int) -> float:
        """Return how long a unit of a size should hold up the loop; infinite while it may not run there."""
        return math.inf if self._off else self._each * (size + _COMMIT)

    def took(self, size: int, seconds: float) -> None:
        """Take note of the time that a unit held up the loop."""
        self._each = seconds / (size + _COMMIT)
        if seconds > BRIEF:
            self._off = self._sentence
            self._sentence = min(2 * self._sentence, _LONGEST)
        elif self._sentence > 1:
            self._sentence -= 1

    def took_elsewhere(self, size: int, seconds: float) -> None:
        """Take note of the computing time of a unit in a thread of its own, where it may have waited for others."""
        self._each = seconds / (size + _COMMIT)
        if self._off:
            self._off -= 1
