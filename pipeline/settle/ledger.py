"""The books of a run: what of each source is under way, how each record ended, and what is saved with its settling."""

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol

from pipeline.batch import Batch, Origin, SourceSpan
from pipeline.settle.frontier import Frontier
from pipeline.watch.report import Account

__all__ = ("End", "Ledger", "Watcher")


class End(IntEnum):
    """How a record ended, the worst last."""

    FILTERED = 0
    WRITTEN = 1
    SKIPPED = 2
    COLLECTED = 3
    DEAD_LETTERED = 4


_COLUMNS = {
    End.FILTERED: "filtered",
    End.WRITTEN: "written",
    End.SKIPPED: "skipped",
    End.COLLECTED: "collected",
    End.DEAD_LETTERED: "dead_lettered",
}


class Watcher(Protocol):
    """Who wants to know what settles."""

    def rode(self, lead: tuple[str, int], riders: Batch) -> None:
        """Take note that the records of a batch settle with a lead number, and that its records stand for them."""
        ...

    def settled(self, spans: list[SourceSpan]) -> None:
        """Take note of numbers that are settled altogether."""
        ...


class Ledger:
    """Keeps the frontier of each source and the account. Everything here takes one turn of the loop."""

    def __init__(self, on_settled: Callable[[], None] | None = None) -> None:
        self.frontiers: dict[str, Frontier] = {}
        self.account = Account()
        self.watcher: Watcher | None = None
        self._on_settled = on_settled
        # Ends that can't be told from the last batch alone: failures, and what one of several shares amounted to.
        self._marks: dict[str, dict[int, End]] = {}
        # The records of a group, which settle with the one that stands for it.
        self._riders: dict[tuple[str, int], list[Batch]] = {}

    @property
    def unsettled(self) -> int:
        """Numbers beyond the frontiers of all sources."""
        return sum([frontier.unsettled for frontier in self.frontiers.values()])

    def start(self, source: str, number: int) -> None:
        """Begin to number the records of a source."""
        self.frontiers[source] = Frontier(number)

    def read(self, source: str, count: int) -> int:
        """Number new records and return the first number."""
        self.account.read += count
        return self.frontiers[source].read(count)

    def recall(self, source: str, low: int, high: int) -> None:
        """Settle numbers that were just read and that the last checkpoint counted already."""
        self.account.read -= high - low
        self.frontiers[source].settle(low, high)

    def settled(self, source: str, number: int) -> bool:
        """Tell whether a number is settled."""
        return self.frontiers[source].settled(number)

    def share(self, numbers: Iterable[tuple[str, int]]) -> None:
        """Owe one more share of each number: its records now travel in one more batch."""
        for source, number in numbers:
            self.frontiers[source].owe(number, number + 1)

    def share_spans(self, spans: Iterable[SourceSpan], shares: int) -> None:
        """Owe more shares of everything in the spans: a batch now travels on more branches."""
        if shares:
            for source, low, high in spans:
                self.frontiers[source].owe(low, high, shares)

    def ride(self, lead: tuple[str, int], riders: Batch) -> None:
        """Let a batch settle when the lead number does, and end as that ends: an aggregate's group settles as one."""
        self._riders.setdefault(lead, []).append(riders)
        if self.watcher is not None:
            self.watcher.rode(lead, riders)

    def mark(self, origin: Origin, end: End) -> None:
        """Note how a record ended whose number settles with its batch."""
        marks = self._marks.setdefault(origin.source, {})
        marks[origin.number] = max(end, marks.get(origin.number, End.FILTERED))

    def wake(self) -> None:
        """Let whoever waits for something to settle look again."""
        if self._on_settled is not None:
            self._on_settled()

    def settle(self, batch: Batch, end: End = End.WRITTEN) -> None:
        """Settle the spans of a batch: its records ended like this, the other numbers were filtered on the way."""
        if batch.spans:
            done = [
                (source, low, high)
                for source, first, last in batch.spans
                for low, high in self.frontiers[source].settle(first, last)
            ]
            riders = self._take_riders(batch, done, end) if self._riders else ()
            self._count(batch, done, end)
            if self.watcher is not None and done:
                self.watcher.settled(done)
            for rider, its_end in riders:
                self.settle(rider, its_end)
        if self._on_settled is not None:
            self._on_settled()

    def settle_spans(self, spans: list[SourceSpan]) -> None:
        """Settle numbers none of whose records are left: they were filtered, or as marked."""
        self.settle(Batch([], spans=spans))

    def _add(self, end: End, count: int) -> None:
        column = _COLUMNS[end]
        setattr(self.account, column, getattr(self.account, column) + count)

    def _count(self, batch: Batch, done: list[SourceSpan], end: End) -> None:
        total = sum([high - low for _, low, high in batch.spans])
        settled = sum([high - low for _, low, high in done])
        if settled == total and not (self._marks and any(self._marks.get(source) for source, _, _ in done)):
            ended = len(batch.records) if batch.children is None else batch.distinct()
            if end is End.WRITTEN:
                self.account.written += ended
            else:
                self._add(end, ended)
            self.account.filtered += settled - ended
            return
        for source, numbers, _ in batch.by_source():
            marks = self._marks.setdefault(source, {})
            for number in numbers:
                marks[number] = max(end, marks.get(number, End.FILTERED))
        for source, low, high in done:
            self._count_marked(source, low, high)

    def _count_marked(self, source: str, low: int, high: int) -> None:
        marks = self._marks.get(source, {})
        if len(marks) < high - low:
            numbers = [number for number in marks if low <= number < high]
        else:
            numbers = [number for number in range(low, high) if number in marks]
        for number in numbers:
            self._add(marks.pop(number), 1)
        self.account.filtered += high - low - len(numbers)

    def _take_riders(self, batch: Batch, done: list[SourceSpan], end: End) -> list[tuple[Batch, End]]:
        """Return the batches whose lead is settled now, each with the worst end of its lead."""
        leads = [
            lead
            for lead in self._riders
            if any(lead[0] == source and low <= lead[1] < high for source, low, high in done)
        ]
        if not leads:
            return []
        ended = {(source, number) for source, numbers, _ in batch.by_source() for number in numbers}
        return [
            (
                rider,
                max(self._marks.get(lead[0], {}).get(lead[1], End.FILTERED), end if lead in ended else End.FILTERED),
            )
            for lead in leads
            for rider in self._riders.pop(lead)
        ]
