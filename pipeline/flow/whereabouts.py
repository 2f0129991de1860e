"""Where the record is that a source's frontier waits for: looked for only when nothing moves any more."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.batch import Origin, SourceSpan
from pipeline.flow.assembly import Assembly
from pipeline.units import format_duration

__all__ = ("whereabouts",)


def whereabouts(assembly: Assembly, source: str) -> Mapping[str, Any]:
    """Return what holds the first unsettled record of a source: stage, batch and age, with a ``text`` of it all."""
    run = assembly.run
    number = run.ledger.frontiers[source].number
    position = run.position_of(Origin(source, number, ""))
    found = next(_holding(assembly, source, number), None)
    if found is None:
        return {"stage": source, "position": position, "text": f"{position} is on its way from '{source}'"}
    stage, doing, records, admitted = found
    age = max(0.0, run.clock.now() - admitted)
    text = f"{position} {doing} '{stage}', in a batch of {records:,} that was read {_rounded(age)} ago"
    return {"stage": stage, "position": position, "batch": records, "age": round(age, 3), "text": text}


def _holding(assembly: Assembly, source: str, number: int) -> Iterator[tuple[str, str, int, float]]:
    """Yield who holds a record, those at work first."""
    for place in assembly.run.places:
        batch = place.batch
        if batch is not None and _has(batch.spans, source, number):
            yield place.stage, "is worked on by", len(batch.records), batch.admitted
    for batcher in assembly.batchers:
        for batch in batcher.gathered():
            if _has(batch.spans, source, number):
                yield batcher.name, "is gathered by", len(batch.records), batch.admitted
    for name, channel in assembly.wiring.channels.items():
        for batch in channel.waiting():
            if _has(batch.spans, source, number):
                yield name, "waits for", len(batch.records), batch.admitted


def _has(spans: list[SourceSpan], source: str, number: int) -> bool:
    return any(name == source and low <= number < high for name, low, high in spans)


def _rounded(seconds: float) -> str:
    return format_duration(float(f"{seconds:.2g}"))
