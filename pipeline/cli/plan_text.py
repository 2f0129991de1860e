"""A checked plan in words and as data: stages, channels, memory, guarantees."""

from collections.abc import Iterator
from typing import Any

from pipeline.plan.graph import to_text
from pipeline.plan.topology import PlannedStage, Topology, channel_of
from pipeline.stage import Sink, Source
from pipeline.units import format_duration, format_size

__all__ = ("plan_data", "plan_lines")


def plan_lines(topology: Topology) -> Iterator[str]:
    """Yield the lines of a plan for people."""
    yield from to_text(topology).split("\n")
    yield ""
    yield "channels:"
    for stage in topology.stages.values():
        if not isinstance(stage.spec, Source):
            yield f"  into {stage.name}: {_bounds(stage)}"
    yield ""
    yield from _times(topology)


def plan_data(topology: Topology) -> dict[str, Any]:
    """Return a plan as JSON-able data."""
    memory = topology.memory()
    return {
        "pipeline": topology.name,
        "state": topology.checkpoint_path,
        "stages": [_stage_data(topology, stage) for stage in topology.stages.values()],
        "memory": {"bytes": memory.total, "parts": [{"what": what, "bytes": count} for what, count in memory.parts]},
        "guarantees": {
            name: {"guarantee": guarantee.text, "exactly_once": guarantee.exact, "why": guarantee.why}
            for name, guarantee in topology.guarantees().items()
        },
    }


def _times(topology: Topology) -> Iterator[str]:
    drain: Any = topology.config.drain
    saved = topology.config.saved()
    interval: Any = saved.interval
    if topology.checkpoint_path is not None:
        yield (
            f"checkpoint: every {format_duration(interval)}; reading waits at {saved.max_unsettled:,} unsettled records"
        )
    yield f"stop: within {format_duration(drain)} of a signal"
    endless = [stage.name for stage in topology.sources if isinstance(stage.spec, Source) and stage.spec.endless()]
    if endless:
        yield f"endless: {', '.join(endless)}; a signal is the normal end"


def _bounds(stage: PlannedStage) -> str:
    bounds = channel_of(stage.spec)
    size: Any = bounds.bytes
    count = "two batches" if bounds.records is None else f"{bounds.records:,} records"
    return f"{count} or {format_size(size)}"


def _stage_data(topology: Topology, stage: PlannedStage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": stage.name,
        "role": stage.role,
        "kind": stage.kind,
        "inputs": list(stage.inputs),
        "on_failure": topology.policy_of(stage.name),
    }
    if not isinstance(stage.spec, Source):
        bounds = channel_of(stage.spec)
        found["channel"] = {"records": bounds.records, "bytes": bounds.bytes}
        found["when"] = _plain(getattr(stage.spec, "when", None))
        found["concurrency"] = getattr(stage.spec, "concurrency", 1)
    if isinstance(stage.spec, Sink):
        found["delivery"] = topology.delivery_of(stage.name)
    return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else str(getattr(value, "__name__", "a function"))
