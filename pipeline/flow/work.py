"""What a processor does to one batch: the forms of work, each from a batch to its results."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import anyio
import anyio.lowlevel
from msgspec import Struct, field

from pipeline.batch import Batch, Many
from pipeline.errors import ConfigError, StageError
from pipeline.flow.attempts import Spent, Trial, as_error
from pipeline.flow.ownership import copy_record, copy_records
from pipeline.flow.parts import Parts, Unreachable
from pipeline.flow.results import absorb
from pipeline.flow.run import YIELD_AFTER, Failure, Halt, Run
from pipeline.flow.step import Abandoned, Rest, Step
from pipeline.flow.streamed import StreamedStep
from pipeline.flow.whole import WholeStep
from pipeline.flow.window import Places
from pipeline.plan.policies import policy_problems
from pipeline.stage import Each, EachAsync, Processor, Streamed, Whole

__all__ = ("EachAsyncStep", "EachStep", "WholeStep", "make_step")

_FIRST_SLICE = 8
_LONGEST_SLICE = 1024
"""Records between two looks at the clock."""
_SLOW_CALL = 0.05


class EachStep(Step):
    """A synchronous function for each record: one pass over the list, at the cost of the calls."""

    computes = True
    by_record = True
    opened: Each

    def __init__(self, run: Run, name: str, spec: Processor, work: Each) -> None:
        super().__init__(run, name, spec, work)
        self._copies = self.keeps and work.changes
        self._warned = False
        self._slice = _FIRST_SLICE
        self._may_thread = hasattr(spec, "executor")

    @property
    def remakes(self) -> bool:
        """Whether it is no filter."""
        return self.opened.gives != "keep"

    async def work(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Call the function for each record; one that fails is tried again, and the pass goes on behind it."""
        results: list[Any] = []
        try:
            if self.attempts.gate:
                clean = False
                await self._one_by_one(batch, results, rest)
            else:
                clean = await self._pass(batch, results, rest)
        except (Halt, Unreachable, Abandoned) as end:
            return self.ended(batch, results, len(results), end)
        return self.finished(batch, results, clean)

    async def _pass(self, batch: Batch, results: list[Any], rest: Rest) -> bool:
        """Append a result for each record, and tell whether none of them is a failure."""
        records = batch.records
        inputs = copy_records(records) if self._copies else records
        calls = self._calls(batch, inputs)
        loop = self.opened.loop
        count = len(records)
        clock = self.run_of.clock
        clean = True
        turn = before = clock.now()
        while len(results) < count:
            done = len(results)
            wanted = min(done + self._slice, count)
            try:
                if loop is not None:
                    loop(islice(calls, wanted - done), results.append)
                else:
                    results.extend(islice(calls, wanted - done))
                if len(results) < wanted:
                    # A StopIteration out of the function looks like the end of the records.
                    raise RuntimeError("the function raised StopIteration")
                self.attempts.passed()
                now = clock.now()
                self._fit_slice(now - before, wanted - done)
            except BaseException as error:
                # Nothing waits here, so even a cancellation can only be the function's own doing.
                clean = False
                results.extend(await self._again(batch, len(results), as_error(error), rest))
                calls = self._calls(batch, inputs, len(results))
                now = clock.now()
            if now - turn > YIELD_AFTER:
                await anyio.lowlevel.checkpoint()
                now = turn = clock.now()
            before = now
        return clean

    async def _one_by_one(self, batch: Batch, results: list[Any], rest: Rest) -> None:
        """Call the function for each record, as the gate lets it."""
        clock = self.run_of.clock
        turn = clock.now()
        while len(results) < len(batch.records):
            results.extend(await self._again(batch, len(results), None, rest))
            if clock.now() - turn > YIELD_AFTER:
                await anyio.lowlevel.checkpoint()
                turn = clock.now()

    def _calls(self, batch: Batch, inputs: list[Any], start: int = 0) -> Iterator[Any]:
        """Return an iterator that calls the function for each record; of the records themselves for a loop."""
        function = self.opened.function
        records = islice(inputs, start, None) if start else inputs
        if self.opened.loop is not None:
            return iter(records)
        if self.opened.origins:
            return map(function, records, map(batch.origin, range(start, len(inputs))))
        if self.opened.context:
            contexts = (self.context(batch, index, 1) for index in range(start, len(inputs)))
            return (function(record, context=context) for record, context in zip(records, contexts, strict=False))
        return map(function, records)

    async def _again(self, batch: Batch, index: int, error: Exception | None, rest: Rest) -> list[Any]:
        """Make the attempts at one record, of which the first may have failed already.

        Returns its result, and those of records behind it that had to be tried to know whose fault it is.
        """
        first = [error] if error is not None else []
        call = self._call(batch, index)

        async def attempt(number: int) -> Any:
            if first:
                raise first.pop()
            return call(number)

        try:
            return [await self.attempts.make(attempt, batch, rest, Trial(alone=index + 1 == len(batch.records)))]
        except Spent as spent:
            if not self.is_missed(spent):
                return [self.failure(batch, index, spent.error, spent.attempts)]
            return await self._beyond(batch, index, spent, rest)

    async def _beyond(self, batch: Batch, index: int, spent: Spent, rest: Rest) -> list[Any]:
        """Find out by the records behind one whether the other side is there."""
        results: dict[int, Any] = {}

        async def call(indexes: Sequence[int], attempt: int) -> None:
            results[indexes[0]] = self._call(batch, indexes[0])(attempt)

        def fail(index: int, error: Exception, attempts: int, unavailable: bool) -> None:
            results[index] = self.failure(batch, index, error, attempts, unavailable)

        others = range(index + 1, len(batch.records))
        await Parts(self.attempts, batch, call, fail, rest=rest, answers=self.run_of.answers(batch)).run_singly(
            {index: spent}, others
        )
        return [results[each] for each in sorted(results)]

    def _call(self, batch: Batch, index: int) -> Callable[[int], Any]:
        def call(number: int) -> Any:
            record = copy_record(batch.records[index]) if self._copies else batch.records[index]
            if self.opened.origins:
                return self.opened.function(record, batch.origin(index))
            if self.opened.context:
                return self.opened.function(record, context=self.context(batch, index, number))
            return self.opened.function(record)

        return call

    def finished(self, batch: Batch, results: list[Any], clean: bool = False) -> tuple[Batch, Halt | None]:
        """Put the results in the place of a batch's records; ``clean`` when none of them is a failure."""
        gives = self.opened.gives
        if gives == "any":
            return absorb(self.run_of, self.name, batch, results)
        if gives == "record":
            if not clean:
                return absorb(self.run_of, self.name, batch, results)
            batch.records = results
            return batch, None
        if gives == "many":
            some = [result if type(result) is Failure else Many(result) for result in results]
            return absorb(self.run_of, self.name, batch, some)
        if not clean:
            kept = [
                result if type(result) is Failure else record if result else None
                for record, result in zip(batch.records, results, strict=True)
            ]
            return absorb(self.run_of, self.name, batch, kept)
        before = len(batch.records)
        batch.keep(results)
        self.metrics.filtered += before - len(batch.records)
        return batch, None

    def _fit_slice(self, seconds: float, calls: int) -> None:
        """Look at the clock as often as the function's speed asks for: a slice is to take about half a turn."""
        if seconds > YIELD_AFTER:
            self._slice = max(1, int(calls * YIELD_AFTER / 2 / seconds))
        elif seconds < YIELD_AFTER / 4:
            self._slice = min(self._slice * 2, _LONGEST_SLICE)
        if seconds > _SLOW_CALL * calls and self._may_thread and not self._warned:
            self._warned = True
            self.run_of.events.emit(
                "warning",
                text=f"stage '{self.name}': its function takes over {_SLOW_CALL * 1000:.0f} ms a call and holds up "
                "everything else meanwhile; `executor: thread` would not",
            )


class EachAsyncStep(Step):
    """An asynchronous function for each record, ``concurrency`` records at a time over all batches."""

    by_record = True
    opened: EachAsync

    def __init__(self, run: Run, name: str, spec: Processor, work: EachAsync) -> None:
        super().__init__(run, name, spec, work)
        self._places = Places(spec.concurrency)
        self._one_by_one = spec.concurrency == 1

    def resize(self, concurrency: int) -> None:
        """Let the function be called for so many records at once."""
        super().resize(concurrency)
        self._places.resize(concurrency)
        self._one_by_one = concurrency == 1

    async def work(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Call the function for each record; results keep the order of the records."""
        course = _Course([_NOT_YET] * len(batch.records))
        try:
            while left := course.left:
                await self._all(batch, course, left)
                if course.ends:
                    raise course.ends[min(course.ends)]
                if course.missed:
                    missed, course.missed = course.missed, {}
                    await self._singly(batch, course.results, missed, course.left, rest)
        except (Halt, Unreachable, Abandoned) as end:
            return self.ended(batch, course.results, course.left[0], end)
        return self.finished(batch, course.results)

    async def _all(self, batch: Batch, course: "_Course", left: list[int]) -> None:
        if self._one_by_one:
            for index in left:
                await self._one(batch, course, index, nullcontext)
                if course.over:
                    return
            return
        async with anyio.create_task_group() as group:
            for index in left:
                await self._places.acquire()
                try:
                    # Whoever has left the place may have failed of what ends all of it.
                    await anyio.lowlevel.checkpoint()
                except BaseException:
                    self._places.release()
                    raise
                if course.over:
                    self._places.release()
                    break
                group.start_soon(self._in_place, batch, course, index)

    async def _in_place(self, batch: Batch, course: "_Course", index: int) -> None:
        try:
            await self._one(batch, course, index, self._places.rest)
        finally:
            self._places.release()

    async def _one(self, batch: Batch, course: "_Course", index: int, rest: Rest) -> None:
        try:
            trial = Trial(alone=len(batch.records) == 1)
            course.results[index] = await self.attempts.make(self._call(batch, index), batch, rest, trial)
        except Spent as spent:
            if self.is_missed(spent):
                course.missed[index] = spent
                return
            try:
                course.results[index] = self.failure(batch, index, spent.error, spent.attempts)
            except Halt as halt:
                course.ends[index] = halt
        except Abandoned as end:
            course.ends[index] = end

    def _call(self, batch: Batch, index: int) -> Callable[[int], Awaitable[Any]]:
        record = batch.records[index]

        async def attempt(number: int) -> Any:
            given = copy_record(record) if self.keeps else record
            if self.opened.context:
                return await self.opened.function(given, context=self.context(batch, index, number))
            return await self.opened.function(given)

        return attempt

    async def _singly(
        self, batch: Batch, results: list[Any], missed: dict[int, Spent], left: list[int], rest: Rest
    ) -> None:
        """Find out by further records, one by one, whether the other side is there."""

        async def call(indexes: Sequence[int], attempt: int) -> None:
            results[indexes[0]] = await self._call(batch, indexes[0])(attempt)

        def fail(index: int, error: Exception, attempts: int, unavailable: bool) -> None:
            results[index] = self.failure(batch, index, error, attempts, unavailable)

        await Parts(self.attempts, batch, call, fail, rest=rest, answers=self.run_of.answers(batch)).run_singly(
            missed, left
        )


_NOT_YET = object()
"""In the place of a result."""


class _Course(Struct):
    """How far the work on the records of a batch has come."""

    results: list[Any]
    missed: dict[int, Spent] = field(default_factory=dict[int, Spent])
    """What the other side was not there for."""
    ends: dict[int, Halt | Abandoned] = field(default_factory=dict[int, Halt | Abandoned])

    @property
    def left(self) -> list[int]:
        return [index for index, result in enumerate(self.results) if result is _NOT_YET]

    @property
    def over(self) -> bool:
        return bool(self.missed or self.ends)


def make_step(run: Run, name: str, spec: Processor, work: Any) -> Step:
    """Return the step for what a processor's ``open`` returned.

    :raises ConfigError: when a key does not fit it, which only now is known.
    """
    for key, text in _misfits(spec, work):
        raise ConfigError(f"stage '{name}': key '{key}': {text}")
    if isinstance(work, Each):
        return EachStep(run, name, spec, work)
    if isinstance(work, EachAsync):
        return EachAsyncStep(run, name, spec, work)
    if isinstance(work, Whole):
        return WholeStep(run, name, spec, work)
    if isinstance(work, Streamed):
        return StreamedStep(run, name, spec, work)
    raise StageError(f"stage '{name}': its open() returned {type(work).__name__}, which is no work of a processor")


def _misfits(spec: Processor, work: Any) -> Iterator[tuple[str, str]]:
    yield from policy_problems(spec, not isinstance(work, Whole))
    for key in ("rate_limit", "circuit_breaker"):
        if isinstance(work, Streamed) and getattr(spec, key) is not None:
            yield key, "a stream operator asks for records itself, and can't be held back; leave it out"
