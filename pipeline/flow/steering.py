"""Changes to a run on its way: what its feeds hand out, how many batches a stage works on, how long one may take."""

from collections.abc import Callable
from math import ceil

import msgspec

from pipeline.errors import ConfigError
from pipeline.flow.assembly import Assembly
from pipeline.flow.work import EachAsyncStep
from pipeline.nearest import did_you_mean
from pipeline.plan.topology import PlannedStage, build_topology
from pipeline.stage import Feed, Processor, Sink

__all__ = ("Steering",)

_SMALLEST, _LARGEST = 16, 1000
"""Records that a feed hands out at a time: enough that a chunk costs little, few enough to overtake the others."""
_WORTH_SHARING = 64
"""Records below which a crowd is not divided between batches in flight: it would only make more calls."""


class Steering:
    """The parts of a run that can be steered. ``feeds`` are its sources that this process feeds, by name."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self.feeds = {actor.name: actor.reader for actor in assembly.sources if isinstance(actor.reader, Feed)}
        for name, feed in self.feeds.items():
            feed.wanted = self._wanted_behind(name)

    def resize(self, stage: str, concurrency: int) -> None:
        """Let a stage work on so many batches at a time from its next one on; records, if it takes them singly.

        :raises ConfigError: when there is no such stage, or its plan would be refused with this ``concurrency``.
        """
        planned = self._stage(stage)
        self._check(planned, concurrency)
        for sink in self._assembly.sinks:
            if sink.name == stage:
                sink.resize(concurrency)
        for actor in self._assembly.processors:
            if any(step.name == stage for step in actor.steps):
                if len(actor.steps) > 1:
                    raise ConfigError(f"{_who(planned)}: it is synchronous and shares its actor with its neighbours")
                actor.resize(concurrency)
        if stage not in self._assembly.wiring.by_record:
            for batcher in self._assembly.batchers:
                batcher.resized(stage, concurrency)
        self._assembly.run.events.emit("concurrency", stage=stage, concurrency=concurrency)

    def retarget(self, seconds: float, batcher: str | None = None) -> None:
        """Let adaptive batchers, or the one that is named, size batches for another target latency.

        :raises ConfigError: when there is no such batcher, it has no target, or the target is none.
        """
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"a target latency must be more than 0 seconds, not {seconds:g}")
        if batcher is not None and self._stage(batcher).role != "batcher":
            raise ConfigError(f"{_who(self._stage(batcher))}: only batchers have a target latency")
        adaptive = [
            actor
            for actor in self._assembly.batchers
            if actor.name == batcher or (batcher is None and actor.has_target)
        ]
        if not adaptive:
            raise ConfigError(f"pipeline '{self._assembly.run.topology.name}' has no batcher with a target latency")
        for actor in adaptive:
            actor.retarget(seconds)

    def _stage(self, name: str) -> PlannedStage:
        topology = self._assembly.run.topology
        if name not in topology.stages:
            near = did_you_mean(name, topology.stages)
            raise ConfigError(f"pipeline '{topology.name}' has no stage '{name}'{near}")
        return topology.stages[name]

    def _check(self, planned: PlannedStage, concurrency: int) -> None:
        """Plan the pipeline as it would be: whatever a config is refused for is refused here too."""
        if not isinstance(planned.spec, Processor | Sink):
            raise ConfigError(f"{_who(planned)}: only processors and sinks have a concurrency")
        topology = self._assembly.run.topology
        resized = msgspec.structs.replace(planned.spec, concurrency=concurrency)
        stages = [
            msgspec.structs.replace(each, spec=resized if each.name == planned.name else each.spec)
            for each in topology.stages.values()
        ]
        build_topology(topology.name, topology.config, stages)

    def _wanted_behind(self, source: str) -> Callable[[], int]:
        """Return what tells how many records the stages behind a source can use at a time."""
        run = self._assembly.run
        stages = [run.metrics[name] for name in run.topology.stages[source].outputs]
        batchers = [actor for actor in self._assembly.batchers if actor.name in run.topology.stages[source].outputs]
        steps = [step for actor in self._assembly.processors for step in actor.steps]
        singly = {step.name for step in steps if isinstance(step, EachAsyncStep)}

        def wanted() -> int:
            # A record that goes on by itself is answered with its chunk: a longer one would only wait for it.
            most = min(stage.concurrency if stage.name in singly else max(stage.limit, _SMALLEST) for stage in stages)
            crowd = run.witness.crowd() if run.witness is not None else _LARGEST
            share = max((ceil(crowd / actor.permits()) for actor in batchers if actor.has_target), default=_LARGEST)
            return min(most, max(share, _WORTH_SHARING), _LARGEST)

        return wanted


def _who(planned: PlannedStage) -> str:
    return f"stage '{planned.name}' ({planned.role} {planned.kind})"
