"""From what becomes of records back to those who wait: answers find their callers by source and number."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from pipeline.batch import Batch, Origin, SourceSpan
from pipeline.cause import cause_of
from pipeline.clock import Clock
from pipeline.errors import DeadlinePassed, RecordFailed, SubmitError, Unfinished
from pipeline.flow.run import Failure
from pipeline.settle.cut import Cut, Letter
from pipeline.stage import Place

__all__ = ("Answer", "Answers", "Caller", "Counts", "Turn")

_WORTH_A_CALL = 64
"""Records below which a crowd is not divided between batches in flight: it would only make more calls."""
_RECENT = 1.0
"""Seconds after which a crowd of callers that has not been seen again is no longer expected."""


class Answer:
    """What became of a submitted record. ``error`` is why there is no answer; only `submit_many` returns such a one."""

    __slots__ = ("_records", "error")

    def __init__(self, records: list[Any], error: SubmitError | None = None) -> None:
        self._records = records
        self.error = error

    def __repr__(self) -> str:
        return f"Answer({self._records!r})" if self.error is None else f"Answer(error={self.error!r})"

    @property
    def records(self) -> list[Any]:
        """What reached the sinks, in the order in which it was written; empty when the record was filtered.

        :raises SubmitError: when there is no answer.
        """
        if self.error is not None:
            raise self.error
        return self._records

    @property
    def record(self) -> Any:
        """The record that reached the sinks; None when it was filtered.

        :raises SubmitError: when there is no answer.
        :raises ValueError: when it became several: take ``records``.
        """
        records = self.records
        if len(records) > 1:
            raise ValueError(f"the record became {len(records)}: take answer.records")
        return records[0] if records else None


class Counts(Struct):
    """What became of submitted records: ``open`` are taken and not answered yet, the others are sums."""

    submitted: int = 0
    answered: int = 0
    failed: int = 0
    late: int = 0
    refused: int = 0
    open: int = 0
    waiting: int = 0


class Turn:
    """What one call of `submit` or `submit_many` waits for: that so many of its records are through."""

    __slots__ = ("_future", "_until", "left", "on_late")

    def __init__(self) -> None:
        self.left = 0
        self.on_late: Callable[[], None] = _nothing
        """Called when the deadline of all has passed."""
        self._until = 0
        self._future: asyncio.Future[None] | None = None

    async def wait(self, most: int = 0, low: int = 0) -> None:
        """When more than ``most`` are left, wait until no more than ``low`` are."""
        if self.left > most:
            self._until = low
            self._future = asyncio.get_running_loop().create_future()
            await self._future

    def one_less(self) -> None:
        """Take note that one is through."""
        self.left -= 1
        if self.left <= self._until and self._future is not None and not self._future.done():
            self._future.set_result(None)


class Caller(Place):
    """A submitted record and what is known of it. ``sink`` is the one whose records are the answer, None for all."""

    __slots__ = ("done", "durable", "error", "failure", "letter", "number", "records", "sink", "source", "turn")

    def __init__(self, record: Any, turn: Turn, source: str, priority: int, sink: str | None, durable: bool) -> None:
        super().__init__(record, priority)
        self.turn = turn
        self.source = source
        self.sink = sink
        self.durable = durable
        self.number = -1
        self.records: list[Any] = []
        self.failure: tuple[str, Failure] | None = None
        self.letter: Letter | None = None
        self.error: SubmitError | None = None
        self.done = False

    def answer(self) -> Answer:
        """Return the answer, once done."""
        return Answer(self.records, self.error)


class Answers:
    """The witness of a service's run (see `pipeline.flow.witness`). ``sources`` are its inlets."""

    def __init__(self, sources: Sequence[str], clock: Clock) -> None:
        self.counts = Counts()
        self.waiting: Callable[[], int] = lambda: 0
        self.request_cut: Callable[[], None] = lambda: None
        self._clock = clock
        self._inlets = frozenset(sources)
        self._pending: dict[str, dict[int, Caller]] = {source: {} for source in sources}
        self._riders: dict[tuple[str, int], list[Caller]] = {}
        self._unsaved: dict[Caller, None] = {}
        self._late: set[tuple[str, int]] = set()
        self._under_way = 0
        self._crowd = self._crowd_before = 0
        self._crowd_until = 0.0

    # --- what the run tells ---

    def answers(self, sources: str | Sequence[str]) -> bool:
        """Tell whether all these sources are inlets."""
        return sources in self._inlets if isinstance(sources, str) else self._inlets.issuperset(sources)

    def numbered(self, source: str, first: int, places: Sequence[Any]) -> None:
        """Take note of the numbers of callers whose records were read."""
        self._pending[source].update(zip(range(first, first + len(places)), places, strict=True))
        for number, caller in enumerate(places, first):
            caller.number = number
            caller.record = None
        self._under_way += len(places)

    def wrote(self, sink: str, batch: Batch) -> None:
        """Keep what a sink has written for those who wait for it."""
        index = 0
        for source, numbers, _ in batch.by_source():
            pending = self._pending.get(source)
            if pending:
                for number, record in zip(numbers, batch.records[index : index + len(numbers)], strict=True):
                    caller = pending.get(number)
                    if caller is not None and (caller.sink is None or caller.sink == sink):
                        caller.records.append(record)
            index += len(numbers)

    def failed(self, stage: str, origin: Origin, position: str, failure: Failure, letter: Letter | None) -> None:
        """Keep why a record failed; of several reasons the first."""
        caller = self._pending[origin.source].get(origin.number)
        if caller is not None and caller.failure is None:
            caller.failure = (stage, failure)
            caller.letter = letter

    def rode(self, lead: tuple[str, int], riders: Batch) -> None:
        """Let the records of a group get what becomes of the one that stands for them."""
        callers = [
            caller
            for source, numbers, _ in riders.by_source()
            for number in numbers
            if (caller := self._pending.get(source, {}).get(number)) is not None
        ]
        if not callers:
            return
        self._riders.setdefault(lead, []).extend(callers)
        # Others wait for what it stands for: it is dropped no more.
        self._late.discard(lead)
        pending = self._pending.setdefault(lead[0], {})
        if lead[1] not in pending:
            # The one that stands for them is nobody's, but what becomes of it must be kept.
            nobody = pending[lead[1]] = Caller(None, Turn(), lead[0], 0, None, False)
            nobody.number, nobody.done = lead[1], True
            self._under_way += 1

    def settled(self, spans: list[SourceSpan]) -> None:
        """Answer those whose records are through, or let them wait for the cut that they asked for."""
        for source, low, high in spans:
            pending = self._pending.get(source)
            if pending:
                for number in range(low, high):
                    caller = pending.pop(number, None)
                    if caller is not None:
                        self._through(caller)

    def in_time(self, batch: Batch) -> Sequence[bool] | None:
        """Tell which records are not late; None when none is."""
        if not self._late:
            return None
        mask = [(origin.source, origin.number) not in self._late for origin in batch.origins()]
        return None if all(mask) else mask

    def expects(self, gathered: int, permits: int) -> bool | None:
        """Tell whether a batch that has gathered so many should wait for callers who are not among them.

        Not when it has its share of the crowd: the others fill the other batches in flight. Surely for those who are at
        the door. Nobody comes when all who wait for an answer are among them, or as many wait as ever did lately: who
        was answered has come back already.
        """
        crowd = self.crowd()
        if gathered >= _WORTH_A_CALL and gathered * permits >= crowd:
            return False
        if self.waiting():
            return True
        return None if gathered < self._under_way < crowd else False

    def crowd(self) -> int:
        """Return the most that waited for an answer at a time, lately."""
        now = self._clock.now()
        if now >= self._crowd_until:
            self._crowd_before, self._crowd = self._crowd, 0
            self._crowd_until = now + _RECENT
        self._crowd = max(self._crowd, self._under_way + self.waiting())
        return max(self._crowd, self._crowd_before)

    def saved(self, cut: Cut) -> None:
        """Answer those who waited for a cut that covers their record."""
        for caller in [caller for caller in self._unsaved if _covers(cut, caller)]:
            del self._unsaved[caller]
            self._answer(caller)

    # --- what the service tells ---

    def enter(self, callers: Sequence[Caller]) -> None:
        """Take note of callers who want to be answered."""
        self.counts.submitted += len(callers)
        self.counts.open += len(callers)
        for caller in callers:
            caller.turn.left += 1

    def expire(self, caller: Caller, error: DeadlinePassed) -> None:
        """Answer a caller whose deadline has passed; its record is dropped before the next work on it."""
        if caller.done:
            return
        key = (caller.source, caller.number)
        if error.began and caller not in self._unsaved and key not in self._riders:
            self._late.add(key)
        self.counts.late += 1
        self._finish(caller, error)
        caller.turn.on_late()

    def refuse(self, caller: Caller, error: SubmitError) -> None:
        """Answer a caller whose record nothing is done with."""
        if not caller.done:
            self.counts.refused += 1
            self._finish(caller, error)

    def leave(self, caller: Caller) -> None:
        """Forget a caller who waits no more."""
        if not caller.done:
            caller.done = True
            self.counts.open -= 1

    def end(self, reason: str) -> None:
        """Tell all who still wait that there will be no answer."""
        callers = [caller for pending in self._pending.values() for caller in pending.values()]
        for caller in [*callers, *self._unsaved]:
            if not caller.done:
                self.counts.failed += 1
                self._finish(caller, Unfinished(reason))
        for pending in self._pending.values():
            pending.clear()
        self._unsaved.clear()

    # --- inside ---

    def _through(self, caller: Caller) -> None:
        self._under_way -= 1
        if self._late:
            self._late.discard((caller.source, caller.number))
        riders = self._riders.pop((caller.source, caller.number), None) if self._riders else None
        for rider in riders or ():
            rider.records = list(caller.records)
            rider.failure, rider.letter = caller.failure, caller.letter
        if caller.durable or caller.letter is not None:
            self._unsaved[caller] = None
            self.request_cut()
        else:
            self._answer(caller)

    def _answer(self, caller: Caller) -> None:
        if caller.done:
            return
        error = None
        if caller.failure is not None:
            stage, failure = caller.failure
            letter = caller.letter.id if caller.letter is not None else None
            error = RecordFailed(
                f"stage '{stage}': {cause_of(failure.error)}", stage, failure.error, failure.attempts, letter
            )
            error.unavailable = failure.unavailable
            error.__cause__ = failure.error
            error.records = caller.records
            self.counts.failed += 1
        else:
            self.counts.answered += 1
        self._finish(caller, error)

    def _finish(self, caller: Caller, error: SubmitError | None) -> None:
        caller.error = error
        caller.done = True
        self.counts.open -= 1
        caller.turn.one_less()


def _nothing() -> None:
    """Do nothing."""


def _covers(cut: Cut, caller: Caller) -> bool:
    point = cut.sources.get(caller.source)
    if point is None:
        return False
    return caller.number < point.number or any(low <= caller.number < high for low, high in point.islands)
