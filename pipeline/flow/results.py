"""From what a function returned for the records of a batch to the batch that goes on."""

from itertools import compress, repeat
from typing import Any

from pipeline.batch import Batch, Failed, Many, SourceSpan
from pipeline.flow.outlet import batch_before
from pipeline.flow.run import Failure, Halt, Run

__all__ = ("SPECIAL", "absorb", "group", "up_to")

SPECIAL = frozenset({type(None), Many, Failed, Failure})
"""Types of results that stand for something other than themselves."""


def absorb(run: Run, stage: str, batch: Batch, results: list[Any]) -> tuple[Batch, Halt | None]:
    """Put results in the place of a batch's records: one a record, in order; None, `Many` and failures as they mean.

    Returns the batch that goes on, and the halt when a failure stops the run; then it is what came before it.
    """
    types = set(map(type, results))
    halt = None
    if Failed in types or Failure in types:
        batch, results, halt = _take_out_failures(run, stage, batch, results)
        types = set(map(type, results))
    if type(None) in types:
        mask = [result is not None for result in results]
        run.metrics[stage].filtered += mask.count(False)
        batch.keep(mask)
        results = list(compress(results, mask))
    if Many in types:
        _explode(batch, results)
    else:
        batch.records = results
    return batch, halt


def _take_out_failures(run: Run, stage: str, batch: Batch, results: list[Any]) -> tuple[Batch, list[Any], Halt | None]:
    mask = [True] * len(results)
    for index, result in enumerate(results):
        if type(result) is Failed:
            result = Failure(result.record, result.error)
        if type(result) is not Failure:
            continue
        halt = run.fail(stage, batch, index, result)
        if halt is not None:
            head = batch_before(run, batch, index)
            if head is None:
                return Batch([]), [], halt
            head.keep(mask[:index])
            return head, list(compress(results[:index], mask)), halt
        mask[index] = False
    if batch.ticket is not None:
        batch.ticket.failed += mask.count(False)
    batch.keep(mask)
    return batch, list(compress(results, mask)), None


def _explode(batch: Batch, results: list[Any]) -> None:
    counts: list[int | None] = []
    records: list[Any] = []
    for result in results:
        if type(result) is Many:
            counts.append(len(result))
            records.extend(result)
        else:
            counts.append(None)
            records.append(result)
    batch.explode(counts, records)


def group(run: Run, batch: Batch, records: list[Any]) -> Batch:
    """Return a batch of records that stand for a whole batch: children of its last record, with which all settle."""
    last = batch.origin(len(batch.records) - 1)
    lead = (last.source, last.number)
    riders = batch.pick([i for i, origin in enumerate(batch.origins()) if (origin.source, origin.number) != lead])
    riders.spans = [part for span in batch.spans for part in _without(span, lead) if part[1] < part[2]]
    run.ledger.ride(lead, riders)
    prefix = f"{last.child}." if last.child else ""
    return Batch(
        records,
        last.source,
        list(repeat(last.number, len(records))),
        [f"{prefix}{index}" for index in range(len(records))],
        spans=[(last.source, last.number, last.number + 1)],
        size=batch.size,
        admitted=batch.admitted,
        trigger=batch.trigger,
        ticket=batch.ticket,
        metadata=batch.metadata,
    )


def up_to(run: Run, batch: Batch, results: list[Any], index: int) -> tuple[Batch, list[Any]]:
    """Return the part of a batch, and of its results, before a record at which the run ends."""
    head = batch_before(run, batch, index)
    return (head, results[:index]) if head is not None else (Batch([]), [])


def _without(span: SourceSpan, lead: tuple[str, int]) -> list[SourceSpan]:
    source, low, high = span
    if source == lead[0] and low <= lead[1] < high:
        return [(source, low, lead[1]), (source, lead[1] + 1, high)]
    return [span]
