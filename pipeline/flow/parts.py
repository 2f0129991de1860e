"""A batch in parts: what fails together is tried in halves until the records at fault stand alone.

A record that a dependency can't be reached for is at fault only while others get through; so before it is blamed, or
the dependency is, other records are tried. When more calls than it takes to find one bad record fail on end, nothing
gets through: then a stage with a circuit breaker holds the batch, and any other ends the run. What failed while the
breaker was open is tried again before it is blamed, or an outage would make dead letters; and where the attempts ended
early, for the next failure would have opened the breaker, a record that others get through beside has the rest of them,
one by one, with others between them: so an outage that begins meanwhile is seen as one.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from pipeline.batch import Batch
from pipeline.cause import cause_of
from pipeline.control.policy import Kind
from pipeline.errors import RecordError, RecordErrors
from pipeline.flow.attempts import Abandoned, Attempts, Outcome, Spent, Trial
from pipeline.flow.gate import Rest
from pipeline.stage import Acknowledge

__all__ = ("Call", "Fail", "Parts", "Unreachable")

Call = Callable[[Sequence[int], int], Awaitable[Mapping[int, Exception] | None]]
"""Does the work for the records at these indexes of the batch, as such an attempt; keeps their results.

Returns the errors of those that failed, if any, by their place among the indexes: then the others are done. Raises
`RecordErrors`, or anything else, where none is.
"""
Fail = Callable[[int, Exception, int, bool], None]
"""Takes note that the record at an index failed for good, after so many attempts. Raises what is to end it all.

The last argument says that it is not at fault, and somebody waits to be told that the other side can't be reached.
"""
Make = Callable[[Callable[[int], Awaitable[Any]], Trial], Awaitable[Any]]

_FURTHER = 4
"""Failed calls beyond those that lead to the first record: so many records in a row may be bad."""


class Unreachable(Exception):
    """Nothing gets through, and there is no circuit breaker; ``index`` is the first record that is not done."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


@dataclass(frozen=True, slots=True)
class _Part:
    """Records to be tried together. ``used`` attempts were made; the next one waits as ``after`` its errors, if any.

    With ``again`` it is one record that failed while others got through, and has attempts left.
    """

    indexes: Sequence[int]
    used: int = 0
    single: bool = False
    after: Sequence[Exception] = ()
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Doomed:
    """A record that fails for good, once what stands before it is done."""

    index: int
    error: Exception
    attempts: int


class Parts:
    """The work on one batch.

    ``strict`` keeps the order even where the other side can't be reached: nothing is done past a record for which an
    open breaker speaks. ``stops`` says that the first record to fail ends the run. With ``whole`` the records stand
    and fall together. With ``answers`` somebody waits for each of them: then nothing of it is left when nothing gets
    through. ``first`` is the outcome of an attempt at the whole batch that was made already.
    """

    def __init__(
        self,
        attempts: Attempts,
        batch: Batch,
        call: Call,
        fail: Fail,
        *,
        make: Make | None = None,
        rest: Rest = nullcontext,
        acknowledge: Acknowledge = "each",
        strict: bool = False,
        stops: bool = False,
        whole: bool = False,
        answers: bool = False,
        first: Outcome | None = None,
    ) -> None:
        self._attempts = attempts
        self._batch = batch
        self._call = call
        self._fail = fail
        self._make: Make = make or (lambda work, trial: attempts.make(work, batch, rest, trial))
        self._rest = rest
        self._prefix = acknowledge == "last_successful"
        self._whole = whole or acknowledge == "all_or_nothing"
        self._stubborn = acknowledge != "each"
        self._strict = strict or self._prefix
        self._stops = stops
        self._answers = answers
        self._singly = False
        self._patience = max(len(batch.records) - 1, 1).bit_length() + _FURTHER
        # Made when something fails: most batches get through at once.
        self._left: set[int] | None = None
        self._stack: list[_Part | _Doomed] = []
        self._suspects: list[tuple[_Part, Spent]] = []
        self._retried: set[int] = set()
        self._first = first
        self._since = attempts.calls if first is None else first.since
        self._used = 0
        self._started = 0.0
        self._misses = 0
        self._attempt = 0

    @property
    def left(self) -> set[int]:
        """The indexes of the records that are not done and have not failed for good."""
        if self._left is None:
            self._left = set(range(len(self._batch.records)))
        return self._left

    @property
    def first_left(self) -> int:
        """The index of the first record that is not done."""
        return min(self.left, default=len(self._batch.records))

    async def run(self) -> None:
        """Work until every record is done or has failed for good.

        :raises Unreachable: when nothing gets through, and there is no breaker.
        :raises Abandoned: when a drain came meanwhile.
        """
        self._stack = [_Part(range(len(self._batch.records)))]
        while self._stack or self._suspects:
            await self._step()

    async def run_singly(self, suspects: Mapping[int, Spent], others: Iterable[int]) -> None:
        """Try others, one by one, until one gets through and it is known what that means for the suspects.

        What the suspects failed of is for the other side; raises what `run` does.
        """
        self._singly = True
        self._left = {*suspects, *others}
        self._since = min(spent.since for spent in suspects.values())
        self._used = max(spent.attempts for spent in suspects.values())
        self._started = min(spent.started for spent in suspects.values())
        self._misses = 1
        self._suspects = [(_Part((index,)), suspects[index]) for index in sorted(suspects)]
        self._stack = [_Part((index,), single=True) for index in sorted(self.left - set(suspects), reverse=True)]
        if all(self._attempts.got_through(spent.since) for spent in suspects.values()):
            self._judge()
        while self._suspects or self._misses or self._retried & self.left:
            await self._step()

    async def _step(self) -> None:
        if not self._stack:
            if self._attempts.got_through(self._since):
                self._judge()
            else:
                self._nothing()
            return
        entry = self._stack.pop()
        if isinstance(entry, _Doomed):
            self._doom(entry.index, entry.error, entry.attempts)
            return
        try:
            if entry.after:
                await self._attempts.again(entry.used, entry.after, self._rest)
            errors = await self._make(lambda attempt: self._called(entry, attempt), self._trial(entry))
        except Spent as spent:
            self._failed(entry, spent)
        else:
            self._passed(entry, errors)

    async def _called(self, part: _Part, attempt: int) -> Mapping[int, Exception] | None:
        self._attempt = attempt
        first, self._first = self._first, None
        if first is None:
            errors = await self._call(part.indexes, attempt)
        elif first.raised is not None:
            raise first.raised
        else:
            errors = first.returned
        if errors and self._whole:
            raise RecordErrors(errors)
        return errors

    def _trial(self, part: _Part) -> Trial:
        alone = not self._stack and not self._suspects and self._stands_alone(part)
        return Trial(part.used, part.single, alone, self._stubborn, named=self._whole, first=self._first)

    def _stands_alone(self, part: _Part) -> bool:
        return self._whole or len(part.indexes) == 1

    # --- what got through ---

    def _passed(self, part: _Part, errors: Mapping[int, Exception] | None) -> None:
        self._misses = 0
        if not errors:
            if len(part.indexes) == len(self._batch.records):
                self._left = set()
                return
            self.left.difference_update(part.indexes)
        elif self._prefix:
            head = min(errors)
            self.left.difference_update(part.indexes[:head])
            self._from_head(part.indexes[head:], errors[head], 1 if head else self._attempt)
        else:
            self._partly(part, errors)
        self._judge()

    def _partly(self, part: _Part, errors: Mapping[int, Exception]) -> None:
        """Try again what the other side was not there for; what failed otherwise is a result like any."""
        again: list[int] = []
        if self._attempt < self._attempts.retries.attempts:
            again = [place for place in errors if self._attempts.kind_of(errors[place]) is Kind.UNAVAILABLE]
        indexes = [part.indexes[place] for place in sorted(again)]
        self.left.difference_update(set(part.indexes).difference(indexes))
        if indexes:
            self._stack.append(_Part(indexes, self._attempt, after=[errors[place] for place in again]))

    def _from_head(self, indexes: Sequence[int], error: Exception, used: int) -> None:
        """Try again, in order, from the first record that failed; once it has no attempts left, from behind it."""
        if used < self._attempts.retries.attempts:
            self._stack.append(_Part(indexes, used, after=[error]))
            return
        if len(indexes) > 1:
            self._stack.append(_Part(indexes[1:]))
        self._stack.append(_Doomed(indexes[0], error, used))

    # --- what failed ---

    def _failed(self, part: _Part, spent: Spent) -> None:
        if not part.single:
            self._since = max(self._since, spent.since)
            self._used = spent.attempts
            self._started = spent.started
        if isinstance(spent.error, RecordErrors):
            self._refused(part, spent, spent.error)
        elif spent.kind is Kind.UNAVAILABLE:
            self._missed(part, spent)
        elif self._stands_alone(part):
            self._doom_part(part, spent)
        else:
            self._halve(part, spent)

    def _halve(self, part: _Part, spent: Spent) -> None:
        middle = len(part.indexes) // 2
        self._stack.append(_Part(part.indexes[middle:], spent.attempts, single=True))
        self._stack.append(_Part(part.indexes[:middle], spent.attempts, single=True))

    def _missed(self, part: _Part, spent: Spent) -> None:
        """The other side was not there for a part: find out whether it is for others."""
        if self._attempts.draining:
            raise Abandoned from spent.error
        down = self._attempts.was_down(spent)
        through = self._attempts.got_through(self._since)
        # In order nothing else is tried between its attempts: together they say no more than one.
        self._misses += not (part.again and self._strict and through)
        if not self._stands_alone(part):
            self._halve(part, spent)
        elif not down and through:
            if self._has_more(spent):
                self._try_on(part, spent)
            else:
                self._doom_part(part, spent)
        elif not (down or self._stops) and self._strict and self._misses < self._patience and self._has_more(spent):
            # In order, so before anything behind it is tried; but an outage is to be seen in time.
            self._try_on(part, spent)
        else:
            self._suspects.append((part, spent))
            if self._strict and (spent.held or self._stops):
                self._nothing()
                return
        if self._misses > self._patience and not (through and all(map(_is_tried, self._stack))):
            self._nothing(spent)

    def _judge(self) -> None:
        """Something got through: the suspects are at fault, but for those that only the breaker speaks against."""
        suspects, self._suspects = self._suspects, []
        self._misses = 0
        doomed: list[tuple[_Part, Spent]] = []
        for part, spent in reversed(suspects):
            if self._attempts.was_down(spent):
                self._retried.update(part.indexes)
                self._stack.append(_Part(part.indexes, spent.attempts, single=True))
            elif self._has_more(spent):
                self._try_on(part, spent)
            else:
                doomed.append((part, spent))
        for part, spent in reversed(doomed):
            self._doom_part(part, spent)

    def _has_more(self, spent: Spent) -> bool:
        return self._attempts.has_more(spent.attempts, self._started)

    def _try_on(self, part: _Part, spent: Spent) -> None:
        """Give a record that stands alone one more of its attempts: in order at once, or else after something new."""
        self._retried.update(part.indexes)
        place = self._behind_new() if part.again and not self._strict else len(self._stack)
        self._stack.insert(place, _Part(part.indexes, spent.attempts, single=True, after=[spent.error], again=True))

    def _behind_new(self) -> int:
        """Return the place in the stack behind the next part that was not tried alone, or behind all that may go on."""
        for place in reversed(range(len(self._stack))):
            entry = self._stack[place]
            if isinstance(entry, _Doomed):
                return place + 1
            if not entry.again:
                return place
        return 0

    def _nothing(self, spent: Spent | None = None) -> None:
        """Nothing gets through: hold all that is left until something does."""
        spent = spent or self._suspects[-1][1]
        doomed = [entry for entry in self._stack if isinstance(entry, _Doomed)]
        waiting = sorted(self.left.difference(entry.index for entry in doomed))
        self._stack, self._suspects = [*doomed], []
        if self._attempts.gate.breaker is not None:
            self._hold(waiting, spent)
        elif self._answers:
            self._misses = 0
            for index in waiting:
                self._doom(index, spent.error, spent.attempts, unavailable=True)
        else:
            raise Unreachable(self.first_left, spent.error) from spent.error

    def _hold(self, waiting: list[int], spent: Spent) -> None:
        """Wait with all of it for the breaker; attempts stand still meanwhile."""
        self._attempts.gate.trip(spent.error)
        used = min(self._used, self._attempts.retries.attempts - 1)
        parts: list[Sequence[int]] = [(index,) for index in reversed(waiting)] if self._singly else [waiting]
        self._stack += [_Part(indexes, used, single=self._singly) for indexes in parts]
        self._since = self._attempts.calls
        self._misses = 1

    def _refused(self, part: _Part, spent: Spent, errors: RecordErrors) -> None:
        """Some records of a part are at fault, and nothing of it is done."""
        bad = {part.indexes[place]: error for place, error in errors.errors.items()}
        first = min(bad)
        if self._whole:
            self._doom_part(part, spent)
        elif self._prefix:
            place = part.indexes.index(first)
            self._from_head(part.indexes[place:], bad[first], 1 if place else spent.attempts)
            if place:
                self._stack.append(_Part(part.indexes[:place]))
        else:
            self._take_out(part, bad, spent)

    def _take_out(self, part: _Part, bad: Mapping[int, Exception], spent: Spent) -> None:
        if self._stops:
            # What comes before the first bad record is done before that stops the run.
            first = min(bad)
            self._stack.append(_Doomed(first, bad[first], spent.attempts))
            good = [index for index in part.indexes if index < first]
        else:
            for index in sorted(bad):
                self._doom(index, bad[index], spent.attempts)
            good = [index for index in part.indexes if index not in bad]
        if good:
            self._stack.append(_Part(good))

    def _doom_part(self, part: _Part, spent: Spent) -> None:
        error = spent.error
        if not isinstance(error, RecordErrors):
            for index in part.indexes:
                self._doom(index, error, spent.attempts)
            return
        own = {part.indexes[place]: each for place, each in error.errors.items()}
        first = min(own)
        others = RecordError(f"another record of its batch failed: {cause_of(own[first])}")
        # The one at fault is told first, for where it stops the run.
        for index in (first, *(each for each in part.indexes if each != first)):
            self._doom(index, own.get(index, others), spent.attempts)

    def _doom(self, index: int, error: Exception, attempts: int, unavailable: bool = False) -> None:
        self._fail(index, error, attempts, unavailable)
        self.left.discard(index)


def _is_tried(entry: _Part | _Doomed) -> bool:
    """Tell whether a try of it says nothing of the other side that is not known."""
    return isinstance(entry, _Doomed) or entry.again
