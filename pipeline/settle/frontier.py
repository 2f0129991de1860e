"""The frontier of a source: below it every record is settled; and the islands beyond it that are settled too."""

from bisect import bisect_right

from pipeline.spans import Span

__all__ = ("Frontier",)


class Frontier:
    """Counts, for each record number of a source, the shares that are still under way.

    A number is read with one share. Whoever divides it between two batches owes one more; each batch that ends settles
    one share of each number in its spans; a number without shares is settled. Equal neighbours are kept as one run, so
    that a call costs some list work on the runs in flight, whatever the number of records.

    The idea of a gap-free prefix over completions in any order is that of Kafka consumers that commit the lowest
    unfinished offset (BroadwayKafka, parallel-consumer, Benthos's checkpoint library).
    """

    __slots__ = ("_edges", "_owed")

    def __init__(self, start: int = 0) -> None:
        # Numbers in [_edges[i], _edges[i + 1]) have _owed[i] shares under way.
        self._edges = [start]
        self._owed: list[int] = []

    @property
    def number(self) -> int:
        """The frontier: the first number that is not settled."""
        return self._edges[0]

    @property
    def next(self) -> int:
        """The number that the next record to be read gets."""
        return self._edges[-1]

    @property
    def unsettled(self) -> int:
        """How many numbers lie between the frontier and the last one read, islands included."""
        return self._edges[-1] - self._edges[0]

    @property
    def islands(self) -> list[Span]:
        """The spans beyond the frontier that are settled."""
        return [(self._edges[i], self._edges[i + 1]) for i, owed in enumerate(self._owed) if owed == 0]

    def settled(self, number: int) -> bool:
        """Tell whether a number that was read is settled."""
        if number < self._edges[0]:
            return True
        index = bisect_right(self._edges, number) - 1
        return index < len(self._owed) and self._owed[index] == 0

    def read(self, count: int) -> int:
        """Number so many new records, one share each, and return the number of the first."""
        first = self._edges[-1]
        if count:
            if self._owed and self._owed[-1] == 1:
                self._edges[-1] += count
            else:
                self._edges.append(first + count)
                self._owed.append(1)
        return first

    def owe(self, low: int, high: int, shares: int = 1) -> None:
        """Owe more shares of the numbers in `[low, high)`, each of which must be under way.

        :raises ValueError: when one is settled already or was never read.
        """
        first, last = self._window(low, high)
        if any(owed == 0 for owed in self._owed[first:last]):
            self._join(first, last)
            raise ValueError(f"a number in [{low}, {high}) is settled already")
        for index in range(first, last):
            self._owed[index] += shares
        self._join(first, last)

    def settle(self, low: int, high: int) -> list[Span]:
        """Settle one share of each number in `[low, high)`; return the spans that are thereby settled altogether.

        :raises ValueError: when a number has no share under way.
        """
        edges, owed = self._edges, self._owed
        if low == edges[0] and owed and owed[0] == 1 and low < high < edges[1]:
            # The oldest are done, as in a run that keeps its order: nothing to cut, nothing to join.
            edges[0] = high
            return [(low, high)]
        first, last = self._window(low, high)
        if any(shares == 0 for shares in owed[first:last]):
            self._join(first, last)
            raise ValueError(f"a number in [{low}, {high}) was settled before")
        done: list[Span] = []
        for index in range(first, last):
            self._owed[index] -= 1
            if self._owed[index] == 0:
                if done and done[-1][1] == self._edges[index]:
                    done[-1] = (done[-1][0], self._edges[index + 1])
                else:
                    done.append((self._edges[index], self._edges[index + 1]))
        self._join(first, last)
        while self._owed and self._owed[0] == 0:
            del self._owed[0], self._edges[0]
        return done

    def _window(self, low: int, high: int) -> tuple[int, int]:
        """Return the indexes of the runs that make up `[low, high)`, cutting runs at its ends."""
        if not self._edges[0] <= low < high <= self._edges[-1]:
            raise ValueError(f"[{low}, {high}) is not within [{self._edges[0]}, {self._edges[-1]})")
        return self._cut(low), self._cut(high)

    def _cut(self, number: int) -> int:
        index = bisect_right(self._edges, number) - 1
        if self._edges[index] == number:
            return index
        self._edges.insert(index + 1, number)
        self._owed.insert(index + 1, self._owed[index])
        return index + 1

    def _join(self, first: int, last: int) -> None:
        """Make one run of equal neighbours from the run before ``first`` to the run behind ``last``."""
        for index in range(min(last, len(self._owed) - 1), max(first, 1) - 1, -1):
            if self._owed[index] == self._owed[index - 1]:
                del self._owed[index], self._edges[index]
