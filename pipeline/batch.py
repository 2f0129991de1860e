"""Records that travel together, where each came from, and what they settle."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, groupby
from typing import Any, NamedTuple

from pipeline.spans import runs

__all__ = ("Batch", "Failed", "Many", "Origin", "SourceSpan", "Ticket", "exact_spans")

SourceSpan = tuple[str, int, int]
"""A source's name and the span `[low, high)` of its numbers."""


class Origin(NamedTuple):
    """Where a record comes from; the same each time its source is read again.

    ``child`` is empty for a record as it was read, a path like ``"3"`` or ``"3.0"`` once one became several.
    """

    source: str
    number: int
    child: str


class Failed:
    """A result that says: this record failed. Goes to ``on_failure`` with ``error``; the other records go on.

    The call got through, also for a circuit breaker, whatever the errors in it are; one that says that something can't
    be reached is tried again as ``retry`` allows, and is the record's own then. Raise it where that holds for all.
    """

    __slots__ = ("error", "record")

    def __init__(self, record: Any, error: Exception | str) -> None:
        self.record = record
        self.error = error if isinstance(error, Exception) else ValueError(error)


class Many(tuple[Any, ...]):
    """A result that says: these records take the place of one. Written ``Many([first, second])``; may be empty."""

    __slots__ = ()


class Ticket:
    """What the batcher that cut a batch wants to know: when all of the batch has ended, and whether it went smoothly.

    ``open`` counts the parts of the batch under way (a fan-out makes several); ``smooth`` turns False when an attempt
    failed or the batch was held, so that nobody learns from its time; ``failed`` counts its records that failed.
    """

    __slots__ = ("_done", "failed", "open", "smooth")

    def __init__(self, done: Callable[["Ticket"], None]) -> None:
        self.open = 1
        self.failed = 0
        self.smooth = True
        self._done = done

    def close(self) -> None:
        """Tell that one part has ended."""
        self.open -= 1
        if self.open == 0:
            self._done(self)


class Batch:
    """Records that travel together.

    ``numbers`` and ``children`` run parallel to ``records``: the origin number of each (a range while untouched) and
    its child index (None while there are none); ``sources`` is one name, or one a record after a fan-in. ``spans`` are
    the numbers that the batch settles when it ends: each is one share of the number (see `pipeline.settle.frontier`),
    also of numbers whose records were filtered out on the way. ``ascending`` says that the numbers of each source
    ascend. A batch has one owner at a time, who may change it in place.
    """

    __slots__ = (
        "admitted",
        "ascending",
        "children",
        "metadata",
        "numbers",
        "records",
        "size",
        "sources",
        "spans",
        "ticket",
        "trigger",
    )

    def __init__(
        self,
        records: list[Any],
        sources: str | list[str] = "",
        numbers: Sequence[int] | None = None,
        children: list[str] | None = None,
        *,
        spans: list[SourceSpan] | None = None,
        size: int = 0,
        admitted: float = 0.0,
        trigger: str = "",
        ascending: bool = True,
        ticket: Ticket | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.records = records
        self.sources = sources
        self.numbers: Sequence[int] = range(len(records)) if numbers is None else numbers
        self.children = children
        self.spans: list[SourceSpan] = spans if spans is not None else []
        self.size = size
        self.admitted = admitted
        self.trigger = trigger
        self.ascending = ascending
        self.ticket = ticket
        self.metadata: dict[str, Any] = metadata if metadata is not None else {}

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Batch({len(self.records)} records, {self.spans})"

    def origin(self, index: int) -> Origin:
        """Return where the record at an index comes from."""
        source = self.sources if isinstance(self.sources, str) else self.sources[index]
        return Origin(source, self.numbers[index], self.children[index] if self.children else "")

    def origins(self) -> Iterator[Origin]:
        """Return where each record comes from, in order."""
        return map(self.origin, range(len(self.records)))

    def by_source(self) -> Iterator[tuple[str, Sequence[int], list[str] | None]]:
        """Return source, numbers and children of the records, in runs of one source."""
        if isinstance(self.sources, str):
            yield self.sources, self.numbers, self.children
            return
        for source, group in groupby(range(len(self.records)), self.sources.__getitem__):
            indexes = list(group)
            low, high = indexes[0], indexes[-1] + 1
            yield source, self.numbers[low:high], self.children[low:high] if self.children else None

    def keep(self, mask: Sequence[Any]) -> None:
        """Keep the records whose place in the mask is true; the numbers of the others stay in ``spans``."""
        before = len(self.records)
        self.records = list(compress(self.records, mask))
        if len(self.records) == before:
            return
        self.size = self.size * len(self.records) // before
        self.numbers = list(compress(self.numbers, mask))
        if self.children is not None:
            self.children = list(compress(self.children, mask))
        if not isinstance(self.sources, str):
            self.sources = list(compress(self.sources, mask))

    def pick(self, indexes: Sequence[int]) -> "Batch":
        """Return a batch of the records at these indexes, without spans and ticket."""
        return Batch(
            [self.records[i] for i in indexes],
            self.sources if isinstance(self.sources, str) else [self.sources[i] for i in indexes],
            [self.numbers[i] for i in indexes],
            [self.children[i] for i in indexes] if self.children is not None else None,
            size=self.size * len(indexes) // max(len(self.records), 1),
            admitted=self.admitted,
            trigger=self.trigger,
            ascending=self.ascending,
            metadata=self.metadata,
        )

    def explode(self, counts: Sequence[int | None], records: list[Any]) -> None:
        """Put several records in the place of each: ``counts`` says how many, ``records`` are all of them in order.

        A count of None is one record that stays what it was; every other gives child indexes, also a count of one, so
        that a record has the same origin whichever batch it travels in.
        """
        before = len(self.records)
        places = [i for i, count in enumerate(counts) for _ in range(1 if count is None else count)]
        indexes = [k for count in counts for k in ([""] if count is None else map(str, range(count)))]
        if self.children is not None:
            parents = [self.children[place] for place in places]
            indexes = [".".join(filter(None, pair)) for pair in zip(parents, indexes, strict=True)]
        self.children = indexes
        self.numbers = [self.numbers[place] for place in places]
        if not isinstance(self.sources, str):
            self.sources = [self.sources[place] for place in places]
        self.records = records
        self.size = self.size * len(records) // max(before, 1)

    def forget(self) -> None:
        """Give it up, unsettled: the batcher that cut it would wait for its permit for ever."""
        ticket, self.ticket = self.ticket, None
        if ticket is not None:
            ticket.smooth = False
            ticket.close()

    def split(self, at: int) -> tuple["Batch", "Batch", list[tuple[str, int]]]:
        """Return the first ``at`` records and the rest as two batches, and the numbers that both now hold a share of.

        Numbers filtered out on the way go with the record behind them. Needs ``ascending``.
        """
        head = self._part(0, at)
        tail = self._part(at, len(self.records))
        first = self._first_numbers(tail)
        last = self._last_numbers(head)
        shared = [(source, number) for source, number in first.items() if last.get(source) == number]
        for source, low, high in self.spans:
            cut = min(max(first.get(source, high), low), high)
            if cut > low:
                head.spans.append((source, low, cut))
            if cut < high:
                tail.spans.append((source, cut, high))
        for source, number in shared:
            head.spans.append((source, number, number + 1))
        return head, tail, shared

    def branch(self, name: str | None, records: list[Any]) -> "Batch":
        """Return a batch with the same origins and spans for a branch of a fan-out; ``name`` makes them children."""
        children = self.children
        if name is not None:
            children = [f"{c}.@{name}" if c else f"@{name}" for c in children or [""] * len(self.records)]
        return Batch(
            records,
            self.sources if isinstance(self.sources, str) else list(self.sources),
            self.numbers,
            children if children is None else list(children),
            spans=list(self.spans),
            size=self.size,
            admitted=self.admitted,
            trigger=self.trigger,
            ascending=self.ascending,
            ticket=self.ticket,
            metadata=self.metadata,
        )

    @staticmethod
    def join(batches: Sequence["Batch"]) -> "Batch":
        """Return one batch of the records of several, in order, with all their spans; without tickets."""
        if len(batches) == 1:
            return batches[0]
        first = batches[0]
        source = first.sources
        same = ascending = isinstance(source, str)
        has_children = False
        size, admitted = 0, first.admitted
        for batch in batches:
            size += batch.size
            admitted = min(admitted, batch.admitted)
            has_children = has_children or batch.children is not None
            if not batch.ascending:
                ascending = False
            if batch.sources != source:
                same = ascending = False
        return Batch(
            list(chain.from_iterable([batch.records for batch in batches])),
            source if same else [source for batch in batches for source in _each_source(batch)],
            _join_numbers(batches),
            _join_children(batches) if has_children else None,
            spans=_join_spans(batches),
            size=size,
            admitted=admitted,
            ascending=ascending and _ascends(batches),
            metadata=first.metadata,
        )

    def distinct(self) -> int:
        """Return how many numbers the records come from."""
        if self.children is None:
            return len(self.records)
        if isinstance(self.sources, str):
            return len(set(self.numbers))
        return len(set(zip(self.sources, self.numbers, strict=True)))

    def _part(self, low: int, high: int) -> "Batch":
        return Batch(
            self.records[low:high],
            self.sources if isinstance(self.sources, str) else self.sources[low:high],
            self.numbers[low:high],
            self.children[low:high] if self.children is not None else None,
            size=self.size * (high - low) // max(len(self.records), 1),
            admitted=self.admitted,
            ascending=self.ascending,
            metadata=self.metadata,
        )

    @staticmethod
    def _first_numbers(part: "Batch") -> dict[str, int]:
        if isinstance(part.sources, str):
            return {part.sources: part.numbers[0]} if part.records else {}
        return dict(zip(reversed(part.sources), reversed(part.numbers), strict=True))

    @staticmethod
    def _last_numbers(part: "Batch") -> dict[str, int]:
        if isinstance(part.sources, str):
            return {part.sources: part.numbers[-1]} if part.records else {}
        return dict(zip(part.sources, part.numbers, strict=True))


def exact_spans(batch: Batch) -> list[SourceSpan]:
    """Return the spans of just the numbers whose records are in the batch, ascending or not."""
    numbers: dict[str, set[int]] = {}
    for source, some, _ in batch.by_source():
        numbers.setdefault(source, set()).update(some)
    return [(source, low, high) for source, some in numbers.items() for low, high in runs(sorted(some))]


def _each_source(batch: Batch) -> Iterable[str]:
    return [batch.sources] * len(batch.records) if isinstance(batch.sources, str) else batch.sources


def _join_numbers(batches: Sequence[Batch]) -> Sequence[int]:
    start = stop = None
    for batch in batches:
        numbers = batch.numbers
        if not batch.records:
            continue
        if not isinstance(numbers, range) or (stop is not None and numbers.start != stop):
            return list(chain.from_iterable([batch.numbers for batch in batches]))
        start = numbers.start if start is None else start
        stop = numbers.stop
    return range(start or 0, stop or 0)


def _join_children(batches: Sequence[Batch]) -> list[str]:
    return [child for batch in batches for child in batch.children or [""] * len(batch.records)]


def _join_spans(batches: Sequence[Batch]) -> list[SourceSpan]:
    spans: list[SourceSpan] = []
    for batch in batches:
        for source, low, high in batch.spans:
            if spans and spans[-1][0] == source and spans[-1][2] == low:
                spans[-1] = (source, spans[-1][1], high)
            else:
                spans.append((source, low, high))
    return spans


def _ascends(batches: Sequence[Batch]) -> bool:
    last = -1
    for batch in batches:
        if batch.records:
            if batch.numbers[0] < last:
                return False
            last = batch.numbers[-1]
    return True
