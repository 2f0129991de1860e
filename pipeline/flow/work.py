"""What a processor does to one batch: the four forms of work, each from a batch to its results."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import anyio
import anyio.lowlevel

from pipeline.batch import Batch, Many
from pipeline.control.policy import Kind
from pipeline.control.retry import Retries
from pipeline.errors import StageError
from pipeline.flow.attempts import Abandoned, Spent, as_error
from pipeline.flow.outlet import batch_before
from pipeline.flow.ownership import copy_record, copy_records
from pipeline.flow.results import absorb, group
from pipeline.flow.run import Failure, Halt, Run
from pipeline.flow.step import Rest, Step
from pipeline.flow.streamed import StreamedStep
from pipeline.flow.window import Places
from pipeline.stage import Each, EachAsync, Processor, Streamed, Whole

__all__ = ("EachAsyncStep", "EachStep", "WholeStep", "make_step")

_FIRST_SLICE = 8
_LONGEST_SLICE = 1024
"""Records between two looks at the clock."""
_YIELD_AFTER = 0.005
"""Seconds of uninterrupted work after which other tasks get a turn."""
_SLOW_CALL = 0.05


class EachStep(Step):
    """A synchronous function for each record: one pass over the list, at the cost of the calls."""

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
            await self._pass(batch, results, rest)
        except Halt as halt:
            head, results = _up_to(self.run_of, batch, results, len(results))
            batch, earlier = self._finish(head, results)
            return batch, earlier or halt
        return self._finish(batch, results)

    async def _pass(self, batch: Batch, results: list[Any], rest: Rest) -> None:
        records = batch.records
        inputs = copy_records(records) if self._copies else records
        calls = self._calls(batch, inputs)
        count = len(records)
        clock = self.run_of.clock
        turn = before = clock.now()
        while len(results) < count:
            done = len(results)
            wanted = min(done + self._slice, count)
            try:
                results.extend(islice(calls, wanted - done))
                if len(results) < wanted:
                    # A StopIteration out of the function looks like the end of the records.
                    raise RuntimeError("the function raised StopIteration")
                now = clock.now()
                self._fit_slice(now - before, wanted - done)
            except BaseException as error:
                # Nothing waits here, so even a cancellation can only be the function's own doing.
                index = len(results)
                results.append(await self._again(batch, index, as_error(error), rest))
                calls = self._calls(batch, inputs, index + 1)
                now = clock.now()
            if now - turn > _YIELD_AFTER:
                await anyio.lowlevel.checkpoint()
                now = turn = clock.now()
            before = now

    def _calls(self, batch: Batch, inputs: list[Any], start: int = 0) -> Iterator[Any]:
        function = self.opened.function
        records = islice(inputs, start, None) if start else inputs
        if self.opened.origins:
            return map(function, records, map(batch.origin, range(start, len(inputs))))
        if self.opened.context:
            contexts = (self.context(batch, index, 1) for index in range(start, len(inputs)))
            return (function(record, context=context) for record, context in zip(records, contexts, strict=False))
        return map(function, records)

    async def _again(self, batch: Batch, index: int, error: Exception, rest: Rest) -> Any:
        """Make the further attempts at one record."""
        first: list[Exception] = [error]

        async def attempt(number: int) -> Any:
            if first:
                raise first.pop()
            record = copy_record(batch.records[index]) if self._copies else batch.records[index]
            if self.opened.origins:
                return self.opened.function(record, batch.origin(index))
            if self.opened.context:
                return self.opened.function(record, context=self.context(batch, index, number))
            return self.opened.function(record)

        try:
            return await self.attempts.make(attempt, batch, rest)
        except Spent as spent:
            return self.spent(batch, index, batch.records[index], spent)

    def _finish(self, batch: Batch, results: list[Any]) -> tuple[Batch, Halt | None]:
        gives = self.opened.gives
        if gives == "any":
            return absorb(self.run_of, self.name, batch, results)
        if gives == "record":
            if Failure in set(map(type, results)):
                return absorb(self.run_of, self.name, batch, results)
            batch.records = results
            return batch, None
        if gives == "many":
            some = [result if type(result) is Failure else Many(result) for result in results]
            return absorb(self.run_of, self.name, batch, some)
        if Failure in set(map(type, results)):
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
        if seconds > _YIELD_AFTER:
            self._slice = max(1, int(calls * _YIELD_AFTER / 2 / seconds))
        elif seconds < _YIELD_AFTER / 4:
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
        results: list[Any] = [None] * len(batch.records)
        halts: list[tuple[int, Halt]] = []
        abandoned: list[Abandoned] = []

        async def one(index: int) -> None:
            try:
                results[index] = await self._call(batch, index)
            except Halt as halt:
                halts.append((index, halt))
            except Abandoned as error:
                abandoned.append(error)

        if self._one_by_one:
            for index in range(len(results)):
                await one(index)
                if halts or abandoned:
                    break
        else:
            async with anyio.create_task_group() as group:
                for index in range(len(results)):
                    await self._places.acquire()
                    if halts or abandoned:
                        self._places.release()
                        break
                    group.start_soon(self._in_place, one, index)
        if abandoned:
            raise abandoned[0]
        if halts:
            index, halt = min(halts, key=lambda pair: pair[0])
            head, results = _up_to(self.run_of, batch, results, index)
            batch, earlier = absorb(self.run_of, self.name, head, results)
            return batch, earlier or halt
        return absorb(self.run_of, self.name, batch, results)

    async def _in_place(self, one: Callable[[int], Awaitable[None]], index: int) -> None:
        try:
            await one(index)
        finally:
            self._places.release()

    async def _call(self, batch: Batch, index: int) -> Any:
        record = batch.records[index]

        async def attempt(number: int) -> Any:
            given = copy_record(record) if self.keeps else record
            if self.opened.context:
                return await self.opened.function(given, context=self.context(batch, index, number))
            return await self.opened.function(given)

        try:
            return await self.attempts.make(attempt, batch)
        except Spent as spent:
            return self.spent(batch, index, record, spent)


class WholeStep(Step):
    """A function for the list of a batch's records. A batch that fails is halved until the bad records stand alone."""

    opened: Whole

    def __init__(self, run: Run, name: str, spec: Processor, work: Whole) -> None:
        super().__init__(run, name, spec, work)
        self._once = Retries(attempts=1)

    async def work(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Call the function once for the whole batch, and again for parts of it only where that fails."""
        if self.opened.aggregate:
            return await self._aggregate(batch, rest)
        results: list[Any] = []
        try:
            await self._results(batch, 0, len(batch.records), results, rest, None)
        except Halt as halt:
            head, _ = _up_to(self.run_of, batch, results, len(results))
            batch, earlier = absorb(self.run_of, self.name, head, results[: len(head.records)])
            return batch, earlier or halt
        return absorb(self.run_of, self.name, batch, results)

    async def _results(
        self, batch: Batch, low: int, high: int, results: list[Any], rest: Rest, retries: Retries | None
    ) -> None:
        """Append the results of the records in `[low, high)`; halves of a part that fails get a single attempt each."""
        try:
            results.extend(await self.attempts.make(lambda n: self._call(batch, low, high, n), batch, rest, retries))
        except Spent as spent:
            if high - low == 1 or spent.kind is Kind.UNAVAILABLE:
                results.extend(self.spent(batch, index, batch.records[index], spent) for index in range(low, high))
                return
            middle = (low + high) // 2
            await self._results(batch, low, middle, results, rest, self._once)
            await self._results(batch, middle, high, results, rest, self._once)

    async def _call(self, batch: Batch, low: int, high: int, attempt: int) -> list[Any]:
        # Any call may fail and be made again for a part, so the function never gets the records themselves.
        records = copy_records(batch.records[low:high])
        results = await self._invoke(batch, low, high, records, attempt)
        if len(results) != high - low:
            raise StageError(
                f"stage '{self.name}': the batch function returned {len(results)} results for {high - low} records; "
                "it must return one a record, in order (a record, None, Many or Failed), or say `aggregate: true`"
            )
        return results

    async def _invoke(self, batch: Batch, low: int, high: int, records: list[Any], attempt: int) -> list[Any]:
        extra: dict[str, Any] = {}
        if self.opened.context:
            extra["context"] = self.context(batch, low, attempt)
        if self.opened.keys:
            extra["keys"] = [self.run_of.key_of(batch.origin(index)) for index in range(low, high)]
        returned = self.opened.function(records, **extra)
        if inspect.isawaitable(returned):
            returned = await returned
        if not isinstance(returned, list | tuple) or isinstance(returned, Many):
            raise StageError(
                f"stage '{self.name}': the batch function returned {type(returned).__name__}, not a list of results"
            )
        results: list[Any] = list(returned)  # pyright: ignore[reportUnknownArgumentType]
        return results

    async def _aggregate(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        async def attempt(number: int) -> list[Any]:
            return await self._invoke(batch, 0, len(batch.records), copy_records(batch.records), number)

        try:
            records = await self.attempts.make(attempt, batch, rest)
        except Spent as spent:
            try:
                failures = [self.spent(batch, i, record, spent) for i, record in enumerate(batch.records)]
            except Halt as halt:
                return Batch([]), halt
            return absorb(self.run_of, self.name, batch, failures)
        return group(self.run_of, batch, records), None


def make_step(run: Run, name: str, spec: Processor, work: Any) -> Step:
    """Return the step for what a processor's ``open`` returned."""
    if isinstance(work, Each):
        return EachStep(run, name, spec, work)
    if isinstance(work, EachAsync):
        return EachAsyncStep(run, name, spec, work)
    if isinstance(work, Whole):
        return WholeStep(run, name, spec, work)
    if isinstance(work, Streamed):
        return StreamedStep(run, name, spec, work)
    raise StageError(f"stage '{name}': its open() returned {type(work).__name__}, which is no work of a processor")


def _up_to(run: Run, batch: Batch, results: list[Any], index: int) -> tuple[Batch, list[Any]]:
    """Return the part of a batch, and of its results, before a record that stops the run."""
    head = batch_before(run, batch, index)
    return (head, results[:index]) if head is not None else (Batch([]), [])
