"""A function for the list of a batch's records, as a whole and in the parts that a failure leaves."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from pipeline.batch import Batch, Failed, Many
from pipeline.errors import StageError
from pipeline.flow.attempts import Outcome
from pipeline.flow.ownership import copy_records
from pipeline.flow.parts import Parts, Unreachable
from pipeline.flow.results import SPECIAL, group
from pipeline.flow.run import Halt, Run
from pipeline.flow.step import Abandoned, Rest, Step
from pipeline.functions import is_async
from pipeline.stage import Acknowledge, Processor, Whole

__all__ = ("WholeStep",)


class WholeStep(Step):
    """A function for the list of a batch's records. A batch that fails is halved until the bad records stand alone."""

    opened: Whole

    def __init__(self, run: Run, name: str, spec: Processor, work: Whole) -> None:
        super().__init__(run, name, spec, work)
        self._acknowledge: Acknowledge = spec.acknowledge
        self.computes = not is_async(work.function)

    async def work(self, batch: Batch, rest: Rest = nullcontext) -> tuple[Batch, Halt | None]:
        """Call the function once for the whole batch, and again for parts of it only where that fails."""
        first: Outcome | None = None
        if self.attempts.direct and not self.opened.aggregate:
            first = await self.attempts.directly(self._once, batch)
            if first.raised is None:
                types = set(map(type, first.returned))
                if Failed not in types:
                    self.metrics.attempts += 1
                    if SPECIAL.isdisjoint(types):
                        batch.records = first.returned
                        return batch, None
                    return self.finished(batch, first.returned)
        return await self._by_parts(batch, rest, first)

    async def _by_parts(self, batch: Batch, rest: Rest, first: Outcome | None) -> tuple[Batch, Halt | None]:
        results: list[Any] = [None] * len(batch.records)
        if first is not None and first.raised is None:
            results[:] = first.returned
            first.returned = _errors(results)
        # What an aggregate returns stands for the whole batch, and is no list of results.
        grouped: list[list[Any]] = []

        async def call(indexes: Sequence[int], attempt: int) -> Mapping[int, Exception] | None:
            if self.opened.aggregate:
                grouped.append(await self._invoke(batch, indexes, attempt))
                return None
            found = await self._call(batch, indexes, attempt)
            if len(indexes) == len(results):
                results[:] = found
            else:
                for index, result in zip(indexes, found, strict=True):
                    results[index] = result
            return _errors(found)

        def fail(index: int, error: Exception, attempts: int, unavailable: bool) -> None:
            results[index] = self.failure(batch, index, error, attempts, unavailable)

        parts = Parts(
            self.attempts,
            batch,
            call,
            fail,
            rest=rest,
            acknowledge=self._acknowledge,
            stops=self.run_of.policies[self.name] == "stop",
            whole=self.opened.aggregate,
            answers=self.run_of.answers(batch),
            first=first,
        )
        try:
            await parts.run()
        except (Halt, Unreachable, Abandoned) as end:
            return self.ended(batch, results, parts.first_left, end)
        if grouped:
            return group(self.run_of, batch, grouped[-1]), None
        return self.finished(batch, results)

    async def _once(self, batch: Batch) -> list[Any]:
        return await self._call(batch, range(len(batch.records)), 1)

    async def _call(self, batch: Batch, indexes: Sequence[int], attempt: int) -> list[Any]:
        results = await self._invoke(batch, indexes, attempt)
        if len(results) != len(indexes):
            raise StageError(
                f"stage '{self.name}': the batch function returned {len(results)} results for {len(indexes)} records; "
                "it must return one a record, in order (a record, None, Many or Failed), or say `aggregate: true`"
            )
        return results

    async def _invoke(self, batch: Batch, indexes: Sequence[int], attempt: int) -> list[Any]:
        # Any call may fail and be made again for a part, so the function never gets the records themselves.
        every = len(indexes) == len(batch.records)
        records = copy_records(batch.records if every else [batch.records[index] for index in indexes])
        extra: dict[str, Any] = {}
        if self.opened.context:
            extra["context"] = self.context(batch, indexes[0], attempt)
        if self.opened.keys:
            extra["keys"] = [self.run_of.key_of(batch.origin(index)) for index in indexes]
        returned = self.opened.function(records, **extra)
        if type(returned) is list:  # pyright: ignore[reportUnknownArgumentType]
            return returned.copy()  # pyright: ignore[reportUnknownVariableType]
        if inspect.isawaitable(returned):
            returned = await returned
        if not isinstance(returned, list | tuple) or isinstance(returned, Many):
            raise StageError(
                f"stage '{self.name}': the batch function returned {type(returned).__name__}, not a list of results"
            )
        results: list[Any] = list(returned)  # pyright: ignore[reportUnknownArgumentType]
        return results


def _errors(results: list[Any]) -> dict[int, Exception] | None:
    if Failed not in set(map(type, results)):
        return None
    return {place: result.error for place, result in enumerate(results) if type(result) is Failed}
