"""Sets of record numbers: spans `[low, high)` that merge, and which records something holds."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ("Held", "Span", "Spans", "runs")

Span = tuple[int, int]


def runs(numbers: Iterable[int]) -> list[Span]:
    """Return the spans of ascending numbers; a number that comes twice counts once."""
    if isinstance(numbers, range) and numbers.step == 1:
        return [(numbers.start, numbers.stop)] if numbers else []
    spans: list[Span] = []
    low = high = -1
    for number in numbers:
        if number == high:
            high += 1
        elif number + 1 != high:
            if low >= 0:
                spans.append((low, high))
            low, high = number, number + 1
    if low >= 0:
        spans.append((low, high))
    return spans


class Spans:
    """A set of numbers as sorted spans that never touch."""

    __slots__ = ("_highs", "_lows")

    def __init__(self, spans: Iterable[Sequence[int]] = ()) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        for low, high in spans:
            self.add(low, high)

    def __iter__(self) -> Iterator[Span]:
        return zip(self._lows, self._highs, strict=True)

    def __bool__(self) -> bool:
        return bool(self._lows)

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._lows, number) - 1
        return index >= 0 and number < self._highs[index]

    @property
    def count(self) -> int:
        """How many numbers are in the set."""
        return sum(self._highs) - sum(self._lows)

    @property
    def high(self) -> int:
        """One more than the highest number, 0 when empty."""
        return self._highs[-1] if self._highs else 0

    def add(self, low: int, high: int) -> None:
        """Add the numbers of `[low, high)`; numbers already there stay once."""
        if low >= high:
            return
        first = bisect_left(self._highs, low)
        last = bisect_right(self._lows, high)
        if first < last:
            low = min(low, self._lows[first])
            high = max(high, self._highs[last - 1])
        self._lows[first:last] = [low]
        self._highs[first:last] = [high]

    def prune(self, below: int) -> None:
        """Forget every number below."""
        index = bisect_right(self._highs, below)
        del self._lows[:index], self._highs[:index]
        if self._lows and self._lows[0] < below:
            self._lows[0] = below

    def end_of_run(self, number: int) -> int:
        """Return one more than the last number of the span that holds the number; the number itself when none does."""
        index = bisect_right(self._lows, number) - 1
        return max(number, self._highs[index]) if index >= 0 else number


class Held:
    """Which records a sink holds: per source, whole numbers as spans and single children of numbers."""

    __slots__ = ("_children", "_whole")

    def __init__(self) -> None:
        self._whole: dict[str, Spans] = {}
        self._children: dict[str, dict[int, set[str]]] = {}

    def __bool__(self) -> bool:
        return any(self._whole.values()) or any(self._children.values())

    def __contains__(self, origin: tuple[str, int, str]) -> bool:
        source, number, child = origin
        if child:
            return child in self._children.get(source, {}).get(number, ())
        return source in self._whole and number in self._whole[source]

    def add(self, source: str, numbers: Sequence[int], children: Sequence[str] | None = None) -> None:
        """Add records of one source; ``children`` has a child index for each number, "" for a whole one."""
        if children is None:
            whole = self._whole.setdefault(source, Spans())
            for low, high in runs(numbers):
                whole.add(low, high)
            return
        for number, child in zip(numbers, children, strict=True):
            if child:
                self._children.setdefault(source, {}).setdefault(number, set()).add(child)
            else:
                self._whole.setdefault(source, Spans()).add(number, number + 1)

    def merge(self, other: "Held") -> None:
        """Add everything that another holds."""
        for source, spans in other._whole.items():
            whole = self._whole.setdefault(source, Spans())
            for low, high in spans:
                whole.add(low, high)
        for source, numbers in other._children.items():
            for number, children in numbers.items():
                self._children.setdefault(source, {}).setdefault(number, set()).update(children)

    def numbers(self, source: str) -> Iterator[Span]:
        """Return the spans of a source's whole numbers."""
        return iter(self._whole.get(source, Spans()))

    def holds_any(self, source: str, number: int) -> bool:
        """Tell whether the number or any child of it is held."""
        return (source, number, "") in self or bool(self._children.get(source, {}).get(number))

    def part(self, sources: Collection[str]) -> tuple["Held", "Held"]:
        """Return what is held of some sources, and what is held of all others."""
        mine, others = Held(), Held()
        for source, spans in self._whole.items():
            (mine if source in sources else others)._whole[source] = spans
        for source, children in self._children.items():
            (mine if source in sources else others)._children[source] = children
        return mine, others

    def prune(self, source: str, below: int) -> None:
        """Forget everything of a source below a number: it is settled and never comes again."""
        if source in self._whole:
            self._whole[source].prune(below)
            if not self._whole[source]:
                del self._whole[source]
        children = self._children.get(source)
        if children is not None:
            for number in [number for number in children if number < below]:
                del children[number]
            if not children:
                del self._children[source]

    def encode(self) -> dict[str, Any]:
        """Return what JSON can hold; `decode` reads it."""
        return {
            "whole": {source: list(spans) for source, spans in self._whole.items()},
            "children": {
                source: [[number, sorted(children)] for number, children in sorted(numbers.items())]
                for source, numbers in self._children.items()
            },
        }

    @classmethod
    def decode(cls, encoded: Mapping[str, Any] | None) -> "Held":
        """Read what `encode` wrote; None is empty."""
        held = cls()
        if encoded:
            held._whole = {source: Spans(spans) for source, spans in encoded["whole"].items()}
            held._children = {
                source: {number: set(children) for number, children in numbers}
                for source, numbers in encoded["children"].items()
            }
        return held
