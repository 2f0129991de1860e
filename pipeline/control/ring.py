"""The last so many values, and their quantiles at any time."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

__all__ = ("Ring", "quantile")


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

    def keep(self, count: int) -> None:
        """Forget all but the last `count` values."""
        self.load(list(self._values)[-count:])

    def drop(self, count: int) -> None:
        """Forget the last `count` values."""
        values = list(self._values)
        self.load(values[: max(0, len(values) - count)])

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._sorted.clear()

    def largest(self) -> float:
        """Return the largest value; the ring must not be empty."""
        return self._sorted[-1]

    def last(self, count: int) -> list[float]:
        """Return the last `count` values, sorted."""
        return sorted(islice(reversed(self._values), count))

    def quantile(self, share: float) -> float:
        """Return the quantile of all values (see `quantile`)."""
        return quantile(self._sorted, share)

    def mean(self, cap: float) -> float:
        """Return the mean of the values, each counted as at most `cap`."""
        return sum(min(value, cap) for value in self._sorted) / len(self._sorted)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that a new one stays below with probability `share`, given others of its kind in order.

    That is the one at position share x (count + 1), between two of them where need be; at most the largest.
    """
    position = max(share * (len(ordered) + 1) - 1.0, 0.0)
    below = int(position)
    if below + 1 >= len(ordered):
        return ordered[-1]
    return ordered[below] + (position - below) * (ordered[below + 1] - ordered[below])
