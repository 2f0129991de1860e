"""The last so many values, and their quantiles at any time."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator

__all__ = ("Ring",)


class Ring:
    """The last `length` values pushed.

    Kept in order of arrival and sorted. A push costs a few microseconds at some hundreds of values.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._values: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[float]:
        return iter(self._values)

    def push(self, value: float) -> None:
        """Add a value, dropping the oldest if there are too many."""
        if len(self._values) == self._length:
            oldest = self._values.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
        self._values.append(value)
        insort(self._sorted, value)

    def load(self, values: Iterable[float]) -> None:
        """Replace all values."""
        self.clear()
        for value in values:
            self.push(value)

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._sorted.clear()

    def largest(self) -> float:
        """Return the largest value; the ring must not be empty."""
        return self._sorted[-1]

    def quantile(self, share: float) -> float:
        """Return the value that a new one stays below with probability `share`: the one at rank share x (count + 1).

        Rounded up.
        """
        rank = math.ceil(share * (len(self._sorted) + 1))
        return self._sorted[min(max(rank, 1), len(self._sorted)) - 1]

    def mean(self, cap: float) -> float:
        """Return the mean of the values, each counted as at most `cap`."""
        return sum(min(value, cap) for value in self._sorted) / len(self._sorted)
