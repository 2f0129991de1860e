"""A checked plan in words and as data: stages, channels, memory, guarantees."""

from collections.abc import Iterator
from typing import Any, cast

from msgspec import structs

from pipeline.plan.graph import to_text
from pipeline.plan.keys import PipelineConfig
from pipeline.plan.topology import PlannedStage, Topology, channel_of
from pipeline.plan.watching import told_text
from pipeline.stage import Processor, Sink, Source
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
    policies = [(stage.name, text) for stage in topology.stages.values() if (text := _policy(topology, stage))]
    if policies:
        yield ""
        yield "failures:"
        yield from (f"  {name}: {text}" for name, text in policies)
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
    if topology.config.workers > 1:
        size: Any = topology.config.partition
        merged = "merged in order" if topology.config.merge else "one a partition"
        yield f"workers: {topology.config.workers}, on partitions of about {format_size(size)}; files {merged}"
    yield f"stop: within {format_duration(drain)} of a signal"
    endless = [stage.name for stage in topology.sources if isinstance(stage.spec, Source) and stage.spec.endless()]
    if endless:
        yield f"endless: {', '.join(endless)}; a signal is the normal end"
    yield from _told(topology.config)


def _told(config: PipelineConfig) -> Iterator[str]:
    """Yield who is told how a run fares, without what may be a secret."""
    if config.alerts is not None:
        rules = ("failure_rate", "stalled", "backlog", "breaker")
        asked = [name for name in rules if getattr(config.alerts, name) is not None]
        whom = told_text(config.alerts.webhook, config.alerts.command)
        yield f"alerts: {', '.join(asked)}; to the log{f' and {whom}' if whom else ''}"
    if config.metrics is not None:
        push, every = config.metrics.push, float(config.metrics.every)
        whom = told_text(push, None) if isinstance(push, str) else told_text(None, push)
        yield f"metrics: every {format_duration(every)} to {whom}"


def _bounds(stage: PlannedStage) -> str:
    bounds = channel_of(stage.spec)
    size: Any = bounds.bytes
    count = "two batches" if bounds.records is None else f"{bounds.records:,} records"
    return f"{count} or {format_size(size)}"


def _policy(topology: Topology, stage: PlannedStage) -> str:
    """Return what is done about failures, and about too many calls, where it is more than to stop the run."""
    spec, policy = stage.spec, topology.policy_of(stage.name)
    texts: list[str] = []
    if isinstance(spec, Processor | Sink):
        texts = [*_limits(spec)]
        if spec.acknowledge != "each":
            texts.append(f"acknowledge {spec.acknowledge}")
    if policy != "stop" or texts:
        texts.append(f"then {policy}" if texts else policy)
    return "; ".join(texts)


def _limits(spec: Processor | Sink) -> Iterator[str]:
    limit, breaker, retry = spec.rate_limit, spec.circuit_breaker, spec.retry
    timeout: Any = spec.timeout
    if limit is not None:
        rate: Any = limit.rate
        yield f"at most {rate:g} calls a second, {limit.burst} at once"
    if timeout is not None:
        yield f"at most {format_duration(timeout)} an attempt"
    if retry is not None and retry.attempts > 1:
        both: Any = retry.backoff
        low, high = cast("tuple[float, float]", both if isinstance(both, tuple) else (both, both))
        yield f"{retry.attempts} attempts, {format_duration(low)}..{format_duration(high)} apart"
    if breaker is not None:
        reset: Any = breaker.reset
        yield f"held after {breaker.failures} calls in vain, one call each {format_duration(reset)}"


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
    if isinstance(stage.spec, Processor | Sink):
        found["acknowledge"] = stage.spec.acknowledge
        for name in ("retry", "rate_limit", "circuit_breaker"):
            value = getattr(stage.spec, name)
            found[name] = structs.asdict(value) if value is not None else None
    if isinstance(stage.spec, Sink):
        found["delivery"] = topology.delivery_of(stage.name)
    return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else str(getattr(value, "__name__", "a function"))
