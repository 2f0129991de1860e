"""From a topology and opened stages to actors with channels between them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.batch import Origin
from pipeline.expression import compile_expression, compile_predicate
from pipeline.flow.batcher import BatcherActor, Leg
from pipeline.flow.channel import Channel
from pipeline.flow.outlet import Branch, Door, Outlet
from pipeline.flow.processor import may_fuse
from pipeline.flow.run import Run
from pipeline.flow.step import Step
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.stage import Batcher, ChannelBounds, Processor

__all__ = ("Wiring",)

OTHERWISE = "otherwise"


@dataclass(slots=True)
class Wiring:
    """The channels of a run, and which processors share an actor."""

    run: Run
    channels: dict[str, Channel]
    """The inbox of each stage that has one: not of sources, and not of a processor fused to the one before it."""
    fused: dict[str, list[str]]
    """For each actor of processors, named by its first, all its stages in order."""
    by_record: frozenset[str] = frozenset()
    """Processors whose ``concurrency`` is of records: more batches would only share it."""
    inline: dict[str, Door] = field(default_factory=dict[str, Door])
    """The actors of processors that work in the task of the source or batcher before them, and so have no inbox."""

    @classmethod
    def plan(cls, run: Run, steps: Mapping[str, Step], prompt: Collection[str] = ()) -> "Wiring":
        """Decide which processors are fused, and make a channel for every actor that has an inbox.

        ``prompt`` are the sources that never wait long for a chunk.
        """
        topology = run.topology
        fused: dict[str, list[str]] = {}
        first_of: dict[str, str] = {}
        for name, planned in topology.stages.items():
            if not isinstance(planned.spec, Processor):
                continue
            before = _fuses_with(topology, steps, planned)
            first = first_of[before] if before is not None else name
            first_of[name] = first
            fused.setdefault(first, []).append(name)
        inline = {name for name in fused if _inlines(topology, steps, topology.stages[name], prompt)}
        channels = {
            name: _channel(run, planned)
            for name, planned in topology.stages.items()
            if planned.role != "source" and first_of.get(name, name) == name and name not in inline
        }
        by_record = frozenset(name for name, step in steps.items() if step.by_record)
        return cls(run, channels, fused, by_record)

    def outlet(self, name: str) -> Outlet:
        """Return the outlet of an actor whose last stage this is."""
        return self.outlet_to(self.run.topology.stages[name].outputs)

    def outlet_to(self, outputs: Sequence[str]) -> Outlet:
        """Return an outlet to these stages, as one of an actor that has them behind it."""
        meeting = _meets_again(self.run.topology, outputs)
        branches: list[Branch] = []
        for output in outputs:
            when, origins = _when(self.run.topology.stages[output])
            branches.append(
                Branch(
                    output,
                    self.channels[output] if output in self.channels else self.inline[output],
                    when,
                    otherwise=_is_otherwise(self.run.topology.stages[output]),
                    child=output if meeting else None,
                    origins=origins,
                )
            )
        return Outlet(self.run, branches)

    def batcher(self, name: str, law: Any) -> BatcherActor:
        """Return the actor of a batcher."""
        spec = self.run.topology.stages[name].spec
        assert isinstance(spec, Batcher)
        return BatcherActor(
            self.run,
            name,
            spec,
            law,
            self.channels[name],
            self.outlet(name),
            self._paths(name),
            key=_by_record(spec.by),
            order=_by_record(spec.order_by),
        )

    def _paths(self, name: str) -> list[list[Leg]]:
        """Return every path from a batcher to the sinks or the next batcher, as legs of one actor each."""
        topology = self.run.topology
        paths: list[list[Leg]] = []
        for output in topology.stages[name].outputs:
            planned = topology.stages[output]
            if planned.role == "batcher":
                continue
            names = self.fused.get(output, [output])
            spec: Any = planned.spec
            concurrency = 1 if output in self.by_record else spec.concurrency
            leg = Leg([self.run.metrics[each] for each in names], concurrency)
            paths.extend([leg, *rest] for rest in self._paths(names[-1]) or [[]])
        return paths


def _fuses_with(topology: Topology, steps: Mapping[str, Step], planned: PlannedStage) -> str | None:
    """Return the processor before this one if both can be one actor."""
    spec = planned.spec
    assert isinstance(spec, Processor)
    if len(planned.inputs) != 1 or spec.when is not None or spec.channel is not None or spec.restart is not None:
        return None
    before = topology.stages[planned.inputs[0]]
    if before.role != "processor" or len(before.outputs) != 1:
        return None
    assert isinstance(before.spec, Processor)
    both = may_fuse(steps[before.name], before.spec.concurrency) and may_fuse(steps[planned.name], spec.concurrency)
    return before.name if both and before.spec.restart is None else None


def _inlines(topology: Topology, steps: Mapping[str, Step], planned: PlannedStage, prompt: Collection[str]) -> bool:
    """Tell whether a processor works on each batch in the task of the source or batcher before it.

    A chunk that is small is then still in the processor's cache, and no switch of tasks lies between. One that only
    computes holds up everybody anyway; what it computes for waits for nobody either (a source that never does, a
    batcher whose batch is cut), so nothing is lost by having one wait for the other.
    """
    spec, step = planned.spec, steps[planned.name]
    assert isinstance(spec, Processor)
    if len(planned.inputs) != 1 or spec.when is not None or spec.channel is not None or spec.restart is not None:
        return False
    before = topology.stages[planned.inputs[0]]
    if len(before.outputs) != 1 or spec.concurrency != 1 or not step.only_computes:
        return False
    return before.role == "batcher" or (before.name in prompt and may_fuse(step, spec.concurrency))


def _channel(run: Run, planned: PlannedStage) -> Channel:
    bounds: ChannelBounds = getattr(planned.spec, "channel", None) or ChannelBounds()
    size: Any = bounds.bytes
    return Channel(run.clock, records=bounds.records, bytes=size, senders=len(planned.inputs))


def _when(planned: PlannedStage) -> tuple[Callable[..., Any] | None, bool]:
    when = getattr(planned.spec, "when", None)
    if when is None or when == OTHERWISE:
        return None, False
    if callable(when):
        return when, False
    predicate = compile_predicate(when)
    return predicate.function, predicate.uses_origin


def _is_otherwise(planned: PlannedStage) -> bool:
    return getattr(planned.spec, "when", None) == OTHERWISE


def _by_record(value: str | Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if value is None or callable(value):
        return value
    return compile_expression(value).function


def _meets_again(topology: Topology, outputs: Sequence[str]) -> bool:
    """Tell whether branches of a fan-out to these stages come together further on."""
    if len(outputs) < 2:
        return False
    seen: set[str] = set()
    for output in outputs:
        reached = _reached_from(topology, output)
        if reached & seen:
            return True
        seen |= reached
    return False


def _reached_from(topology: Topology, name: str) -> set[str]:
    reached = {name}
    for output in topology.stages[name].outputs:
        reached |= _reached_from(topology, output)
    return reached


def sinks_below(topology: Topology, name: str) -> set[str]:
    """Return the sinks that records of a stage can reach."""
    return _reached_from(topology, name) & {stage.name for stage in topology.stages.values() if stage.role == "sink"}


def held_by_sinks(topology: Topology, sinks: Mapping[str, Any]) -> Callable[[str, Origin], bool]:
    """Return what tells whether a sink behind a stage held a record when the run began."""
    below = {name: [sinks[sink] for sink in sinks_below(topology, name)] for name in topology.stages}
    # One that only some hold must still reach the others: then it is treated as it comes, a letter too many at worst.
    return lambda stage, origin: bool(below[stage]) and all(sink.holds(origin) for sink in below[stage])
