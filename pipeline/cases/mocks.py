"""What stands in for stages in a case: processors that follow rules, and sinks in memory."""

from collections.abc import Callable
from typing import Any, cast

import anyio.lowlevel
import msgspec

from pipeline.batch import Batch, Many
from pipeline.cases.declared import Rule
from pipeline.expression import compile_predicate
from pipeline.flow.ownership import copy_record
from pipeline.plan.schema import keys_of
from pipeline.stage import (
    EachAsync,
    Processor,
    RecordError,
    RecordErrors,
    Sink,
    SinkContext,
    Stage,
    StageContext,
    Unavailable,
    Whole,
    Work,
    Writer,
)
from pipeline.testing import Stored

__all__ = ("MemorySink", "MockProcessor", "engine_keys")


def engine_keys(spec: Stage) -> dict[str, Any]:
    """Return the values of the keys that belong to the engine: a stage that stands in for this one has the same."""
    return {key.name: getattr(spec, key.name) for key in keys_of(type(spec)) if key.engine}


class MockProcessor(Processor):
    """Follows rules in place of another processor, whose engine keys it has; a record that no rule is for passes."""

    rules: list[Rule]
    batch: bool = False
    aggregate: bool = False

    async def open(self, context: StageContext) -> Work:
        """Return the work: a batch at a time where the other one takes batches."""
        follow = _Rules(self.rules)
        if self.aggregate:
            return Whole(follow.of_group, aggregate=True)
        return Whole(follow.of_batch) if self.batch else EachAsync(follow.of_record)


class MemorySink(Sink):
    """Keeps records in memory, in place of any sink; its rules say what it refuses."""

    stored: Stored
    rules: list[Rule] = msgspec.field(default_factory=list[Rule])

    def durable(self) -> bool:
        """Tell that nothing outlives the run."""
        return False

    async def open(self, context: SinkContext) -> Writer:
        """Return the writer."""
        return _MemoryWriter(self.stored.records, _Rules(self.rules))


class _MemoryWriter(Writer):
    def __init__(self, records: list[Any], rules: "_Rules") -> None:
        self._records = records
        self._rules = rules

    async def write(self, batch: Batch) -> None:
        await anyio.lowlevel.checkpoint()
        errors: dict[int, Exception] = {}
        for index, record in enumerate(batch.records):
            try:
                self._rules.of(record)
            except RecordError as error:
                errors[index] = error
        if errors:
            raise RecordErrors(errors)
        self._records.extend(map(copy_record, batch.records))


class _Rules:
    """The rules of one mock in one run; it counts the attempts that failed."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = [(rule, _predicate(rule), [rule.times or 0]) for rule in rules]

    def of(self, record: Any) -> Any:
        """Return what becomes of a record, as a user's function would."""
        for rule, holds, left in self._rules:
            if not holds(record):
                continue
            if rule.error is not None:
                raise RecordError(rule.error)
            if rule.unavailable is not None:
                if rule.times is not None and not left[0]:
                    continue
                left[0] -= 1
                raise Unavailable(rule.unavailable)
            return _given(rule, record)
        return record

    async def of_record(self, record: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return self.of(record)

    async def of_batch(self, records: list[Any]) -> list[Any]:
        await anyio.lowlevel.checkpoint()
        return list(map(self.of, records))

    async def of_group(self, records: list[Any]) -> list[Any]:
        """Return what a group becomes: what its first record becomes, since a rule's list stands for the whole."""
        await anyio.lowlevel.checkpoint()
        given = self.of(records[0])
        if given is None:
            return []
        return list(given) if isinstance(given, Many) else [given]


def _predicate(rule: Rule) -> Callable[[Any], Any]:
    return compile_predicate(rule.when).function if rule.when is not None else lambda record: True


def _given(rule: Rule, record: Any) -> Any:
    given: Any = rule.give
    if rule.set is not None:
        if isinstance(record, dict):
            return {**cast("dict[str, Any]", record), **rule.set}
        return msgspec.structs.replace(record, **rule.set)
    if isinstance(given, list):
        records: list[Any] = given  # pyright: ignore[reportUnknownVariableType]
        return Many(map(copy_record, records))
    return copy_record(given)
