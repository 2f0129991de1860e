"""The contract of a processor, as a check that any processor can be put to."""

import asyncio
import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from pipeline.batch import Failed, Many, Origin
from pipeline.chain import Chain
from pipeline.errors import PipelineError, RecordError, Unavailable
from pipeline.pipeline import Pipeline
from pipeline.stage import Each, EachAsync, FunctionContext, Processor, Streamed, Whole, Work
from pipeline.testing.cancelling import cancel_points, interrupted
from pipeline.testing.judging import check_declaration, same, shown
from pipeline.testing.lists import ListSource, PlainListSink
from pipeline.testing.opening import opened

__all__ = ("check_processor",)

_CHUNKS = (1, 3, 1000)
_ALL = (Each, EachAsync, Whole, Streamed)


async def check_processor(make: Callable[[], Processor], records: Sequence[Any]) -> list[Any]:
    """Check that a processor keeps the contract of `pipeline.stage.Processor`; returns what it made of the records.

    ``make`` returns a declaration, alike each time; among the ``records`` should be some that fail. Checked are: what
    its work gives, that a record which fails is left as it was, opening and closing twice, and, in an engine, that
    every record is settled once, that results do not depend on how records are batched, and a cancel at each await.

    :raises AssertionError: says what is broken.
    """
    check_declaration(make(), make())
    async with AsyncExitStack() as stack:
        # Open at the same time: one run's work is none of the other's business.
        first = await stack.enter_async_context(opened(make()))
        second = await stack.enter_async_context(opened(make()))
        if not isinstance(first, _ALL):
            raise AssertionError(f"open() must return Each, EachAsync, Whole or Streamed, not {type(first).__name__}")
        results = await _results(first, records)
        if make().resumable():
            same(results, await _results(second, records), "opened again, it gives")
    made = await _run(make, records, _CHUNKS[0])
    if _independent(first) and make().resumable():
        for chunk in _CHUNKS[1:]:
            same(made, await _run(make, records, chunk), f"with batches of {chunk} instead of {_CHUNKS[0]}, it gives")
    await _every_await(make, records)
    return made


def _independent(work: Work) -> bool:
    """Tell whether results belong to single records, however they are batched."""
    return not ((isinstance(work, Whole) and work.aggregate) or (isinstance(work, Streamed) and work.groups))


# --- without an engine ------------------------------------------------------------------------------------------------


async def _results(work: Work, records: Sequence[Any]) -> list[Any]:
    """Return what the work gives for each record, errors as texts."""
    if isinstance(work, Each):
        return [_each(work, number, record) for number, record in enumerate(records)]
    if isinstance(work, EachAsync):
        return [await _each_async(work, number, record) for number, record in enumerate(records)]
    if isinstance(work, Whole) and not work.aggregate:
        return await _whole(work, records)
    return []


def _each(work: Each, number: int, record: Any) -> Any:
    given, before = copy.deepcopy(record), copy.deepcopy(record)
    origin = Origin("source", number, "")
    try:
        if work.origins:
            result = work.function(given, origin)
        elif work.context:
            result = work.function(given, context=_context(origin))
        else:
            result = work.function(given)
    except StopIteration as error:
        raise AssertionError("its function raised StopIteration, which ends a loop and names no record") from error
    except Exception as error:
        if given != before and not work.changes:
            raise AssertionError(
                f"a record that failed was changed from {shown(before)} to {shown(given)}; "
                "check first, then change, or say Each(..., changes=True)"
            ) from error
        return _failed(error)
    return _checked(work.gives, result)


def _checked(gives: str, result: Any) -> Any:
    if gives == "keep":
        return bool(result)
    if gives == "record" and (result is None or isinstance(result, Many)):
        raise AssertionError(f"Each(..., gives='record') gave {shown(result)}, which is not one record")
    if gives == "many" and not isinstance(result, Sequence | Failed):
        raise AssertionError(f"Each(..., gives='many') gave {shown(result)}, which is no sequence of records")
    return _value(result)


async def _each_async(work: EachAsync, number: int, record: Any) -> Any:
    extra: dict[str, Any] = {"context": _context(Origin("source", number, ""))} if work.context else {}
    try:
        return _value(await work.function(copy.deepcopy(record), **extra))
    except Exception as error:
        return _failed(error)


async def _whole(work: Whole, records: Sequence[Any]) -> list[Any]:
    extra: dict[str, Any] = {"context": _context(Origin("source", 0, ""))} if work.context else {}
    if work.keys:
        extra["keys"] = [f"lineage/source/{number}" for number in range(len(records))]
    try:
        returned = work.function(copy.deepcopy(list(records)), **extra)
        results: list[Any] = await returned if inspect.isawaitable(returned) else returned
    except Exception as error:
        return [_failed(error)]
    if len(results) != len(records):
        raise AssertionError(f"its function returned {len(results)} results for {len(records)} records")
    return [_value(result) for result in results]


def _value(result: Any) -> Any:
    if isinstance(result, Failed):
        return ("failed", str(result.error))
    return [_value(each) for each in result] if isinstance(result, Many) else copy.deepcopy(result)


def _failed(error: Exception) -> Any:
    kind = "unavailable" if isinstance(error, Unavailable) else "failed"
    return (kind, str(error) if isinstance(error, RecordError) else f"{type(error).__name__}: {error}")


def _context(origin: Origin) -> FunctionContext:
    return FunctionContext(origin, f"{origin.source}[{origin.number}]", 1, {}, f"lineage/source/{origin.number}")


# --- in an engine -----------------------------------------------------------------------------------------------------


def _pipeline(make: Callable[[], Processor], records: Sequence[Any], chunk: int, sink: PlainListSink) -> Pipeline:
    source = ListSource(copy.deepcopy(list(records)), chunk=chunk)
    return Pipeline("check", checkpoint="none", on_failure="skip") | Chain((source, make(), sink))


async def _run(make: Callable[[], Processor], records: Sequence[Any], chunk: int) -> list[Any]:
    sink = PlainListSink()
    try:
        report = await _pipeline(make, records, chunk, sink).run()
    except PipelineError as error:
        raise AssertionError(f"with batches of {chunk}, a run failed: {error}") from error
    account = report.account
    if account.unsettled or account.read != len(records):
        raise AssertionError(f"with batches of {chunk}, of {len(records)} records the account is: {account}")
    return sink.records


async def _every_await(make: Callable[[], Processor], records: Sequence[Any]) -> None:
    """Cancelled anywhere, a run ends, and leaves no task behind."""
    before = asyncio.all_tasks()
    for at in cancel_points():
        outcome = await interrupted(_pipeline(make, records, _CHUNKS[1], PlainListSink()).run(), at)
        left = [task for task in asyncio.all_tasks() - before if not task.done()]
        if left:
            raise AssertionError(f"cancelled at await {at}, a run leaves {len(left)} tasks behind: {left[0]}")
        if outcome.completed:
            return
