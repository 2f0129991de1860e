"""The checked plan of a pipeline: its stages in the order of the data, and what follows from them."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from msgspec import Struct, structs

from pipeline.errors import ConfigError
from pipeline.plan.checks import check_declared, check_plan, stage_text, wires_of
from pipeline.plan.description import described
from pipeline.plan.document import Mark, Path
from pipeline.plan.guarantee import Guarantee, guarantee_of
from pipeline.plan.keys import Delivery, PipelineConfig
from pipeline.plan.wiring import in_order, outputs_of
from pipeline.projection import Access, Projection, project
from pipeline.stage import Batcher, ChannelBounds, Processor, Sink, Source, Stage, file_keys
from pipeline.widening import Widened, widen

__all__ = ("NOWHERE", "Memory", "PlannedStage", "Topology", "Veil", "assemble", "build_topology", "channel_of")


NOWHERE = Mark("")


class PlannedStage(Struct):
    """A stage in its place. ``mark`` is where a config declares it; ``hidden`` are its keys that hold secrets."""

    name: str
    role: str
    kind: str
    spec: Stage
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    mark: Mark = NOWHERE
    hidden: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """Role and name, as in ``sink 'archive'``."""
        return f"{self.role} '{self.name}'"

    def stateful(self) -> bool:
        """Tell whether the stage keeps state that is saved."""
        return isinstance(self.spec, Processor) and self.spec.stateful()


class Veil(Struct, frozen=True):
    """What a config has that must not be shown: how it is hidden in a text, and which keys of the pipeline hold it.

    ``mask`` is None where there is nothing to hide.
    """

    mask: Callable[[str], str] | None = None
    hidden: frozenset[str] = frozenset()


class Memory(Struct, frozen=True):
    """The bytes that a run may hold at worst, by what holds them; ``total`` is what ``memory:`` lets them come to."""

    parts: tuple[tuple[str, int], ...]
    total: int


@dataclass
class Topology:
    """A plan that can run. ``stages`` are in the order of the data."""

    name: str
    config: PipelineConfig
    stages: dict[str, PlannedStage] = field(default_factory=dict[str, PlannedStage])
    veil: Veil = field(default_factory=Veil)
    """What must not be shown."""
    whole: "Topology | None" = None
    """The plan that this one is a part of."""

    def mask(self, text: str) -> str:
        """Return a text with everything hidden that the config has from the environment and from files."""
        return self.veil.mask(text) if self.veil.mask is not None else text

    @cached_property
    def sources(self) -> list[PlannedStage]:
        """The sources."""
        return [stage for stage in self.stages.values() if isinstance(stage.spec, Source)]

    @cached_property
    def sinks(self) -> list[PlannedStage]:
        """The sinks."""
        return [stage for stage in self.stages.values() if isinstance(stage.spec, Sink)]

    def upstream(self, name: str) -> list[PlannedStage]:
        """Return all stages that the records of a stage may have passed, in the order of the data."""
        found = set(self.stages[name].inputs)
        for stage in reversed(self.stages.values()):
            if stage.name in found:
                found.update(stage.inputs)
        return [stage for stage in self.stages.values() if stage.name in found]

    def nonfinite(self, name: str) -> frozenset[str] | None:
        """Return the fields of the records a stage gives that may hold NaN or infinity; None when any may."""
        return self._nonfinite(name) if self._is_declarative else None

    @cached_property
    def projections(self) -> dict[str, Projection]:
        """What must be decoded of the records of a source, by its name; there is none where that may be anything."""
        found = {source.name: self._projection(source) for source in self.sources}
        return {name: projection for name, projection in found.items() if projection is not None}

    @cached_property
    def widened(self) -> dict[str, type[Widened]]:
        """What the typed records of a source are decoded as, by its name; there is none where no field is computed."""
        found = {
            source.name: widen(source.spec.record_type(), self._accesses(source)[0])
            for source in self.sources
            if isinstance(source.spec, Source) and source.spec.widens()
        }
        return {name: kind for name, kind in found.items() if kind is not None}

    def _projection(self, stage: PlannedStage) -> Projection | None:
        if not isinstance(stage.spec, Source) or not stage.spec.projects():
            return None
        accesses, last = self._accesses(stage)
        return project(accesses, last.name) if all(map(self._passes_text, last.outputs)) else None

    def _accesses(self, stage: PlannedStage) -> tuple[list[Access], PlannedStage]:
        """Return what the processors right behind a stage do, as far as they are all expressions, and the last."""
        accesses: list[Access] = []
        while (below := self._processor_below(stage)) is not None:
            access = below.spec.access() if isinstance(below.spec, Processor) else None
            if access is None:
                break
            accesses.append(access)
            stage = below
        return accesses, stage

    def _processor_below(self, stage: PlannedStage) -> PlannedStage | None:
        """Return the processor that is all there is right behind a stage, and has nothing else before it."""
        below = self.stages[stage.outputs[0]] if len(stage.outputs) == 1 else None
        if below is None or not isinstance(below.spec, Processor) or len(below.inputs) > 1:
            return None
        return below if below.spec.when is None else None

    def _passes_text(self, name: str) -> bool:
        """Tell whether a stage and all below it look into no record."""
        stage = self.stages[name]
        if getattr(stage.spec, "when", None) is not None:
            return False
        if isinstance(stage.spec, Sink):
            return stage.spec.takes_text()
        looks = not isinstance(stage.spec, Batcher) or stage.spec.by is not None or stage.spec.order_by is not None
        return not looks and all(map(self._passes_text, stage.outputs))

    @cached_property
    def _is_declarative(self) -> bool:
        """Whether no stage runs a function of the user's, which might change what a record holds, its own or not."""
        return not any(
            callable(getattr(stage.spec, key, None))
            or (isinstance(stage.spec, Processor) and stage.spec.nonfinite(frozenset()) is None)
            for stage in self.stages.values()
            for key in ("when", "by", "order_by")
        )

    def _nonfinite(self, name: str) -> frozenset[str] | None:
        stage = self.stages[name]
        if isinstance(stage.spec, Source):
            return stage.spec.nonfinite()
        fields: frozenset[str] = frozenset()
        for before in stage.inputs:
            more = self._nonfinite(before)
            if more is None:
                return None
            fields |= more
        return stage.spec.nonfinite(fields) if isinstance(stage.spec, Processor) else fields

    def part(self, feed: PlannedStage, entries: Sequence[Sequence[str]]) -> "Topology":
        """Return the part of the plan that lies behind some stages, fed by one source in the stead of all others.

        Each of ``entries`` are stages that the source gives the same records to. What the sinks promise stays what
        they promise in the whole.
        """
        behind = {name for outputs in entries for name in outputs}
        for stage in self.stages.values():
            if stage.name in behind:
                behind.update(stage.outputs)
        feed.outputs = tuple(name for name in self.stages if any(name in outputs for outputs in entries))
        stages = {feed.name: feed}
        for name, stage in self.stages.items():
            if name in behind:
                # The feed is an input as often as it enters: each of its outlets is closed by itself.
                fed = sum(name in outputs for outputs in entries)
                inputs = (*(each for each in stage.inputs if each in behind), *(feed.name,) * fed)
                stages[name] = structs.replace(stage, inputs=inputs)
        return Topology(self.name, self.config, stages, veil=self.veil, whole=self)

    def policy_of(self, name: str) -> str:
        """Return what happens to a record that fails in a stage."""
        return self.stages[name].spec.on_failure or self.config.on_failure

    @cached_property
    def checkpoint_path(self) -> str | None:
        """The state file; None when every run starts anew."""
        if self.whole is not None:
            return self.whole.checkpoint_path
        if self.config.checkpoint == "none":
            return None
        if self.config.checkpoint is None and not self._worth_saving():
            return None
        return str(self.config.saved().path or PurePath(".pipeline", f"{self.name}.db"))

    def guarantees(self) -> dict[str, Guarantee]:
        """Return what each sink promises about records that come again, and why."""
        return {sink.name: self._guarantees[sink.name] for sink in self.sinks}

    def delivery_of(self, sink: str) -> Delivery:
        """Return what a sink gives in this plan."""
        return "exactly_once" if self._guarantees[sink].exact else "at_least_once"

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Return the identity of each source, sink and stateful stage: what a resume must find unchanged."""
        return {
            stage.name: {"role": stage.role, "kind": stage.kind, **self._identity(stage)}
            for stage in self.stages.values()
            if stage.role in ("source", "sink") or stage.stateful()
        }

    def _identity(self, stage: PlannedStage) -> dict[str, Any]:
        """Return what a stage is known by. A secret in it is saved as a digest, but for the names of files and tables:
        they are what the state must find again, and stand beside it for all to see.
        """
        named = {*file_keys(type(stage.spec)), "table"}
        return {
            key: hashlib.sha256(repr(value).encode()).hexdigest()[:32] if key in stage.hidden - named else value
            for key, value in stage.spec.identity().items()
        }

    def describe(self) -> dict[str, str]:
        """Return all else in words, to say what changed since the last run; secrets are hidden, records left out."""
        said = {f"pipeline '{self.name}'": "pipeline"}
        shown_elsewhere = frozenset(("name", "dead_letter"))
        said |= described(f"pipeline '{self.name}'", self.config, shown_elsewhere, self.veil.hidden)
        for stage in self.stages.values():
            said[stage.title] = stage.kind
            said[f"{stage.title}: from"] = ", ".join(stage.inputs)
            said |= described(stage.title, stage.spec, frozenset(("name",)), stage.hidden)
        return {label: self.mask(text) for label, text in said.items()}

    def memory(self) -> Memory:
        """Return the bytes that a run may hold at worst."""
        held = [part for stage in self.stages.values() for part in self._held_by(stage)]
        reading = [(f"reading of {source.title}", _BLOCK + self.max_record) for source in self.sources]
        total = min(sum(count for _, count in held), self.memory_bound) + sum(count for _, count in reading)
        return Memory((*reading, *held), total)

    @property
    def max_record(self) -> int:
        """Bytes of the largest record."""
        return int(self.config.max_record)

    @property
    def memory_bound(self) -> int:
        """Bytes held at most."""
        return int(self.config.memory)

    @cached_property
    def _guarantees(self) -> dict[str, Guarantee]:
        return self.whole._guarantees if self.whole else {sink.name: guarantee_of(self, sink) for sink in self.sinks}

    def _worth_saving(self) -> bool:
        if self.config.workers > 1:
            return True  # the list of partitions
        letters = any(self.policy_of(name) == "dead_letter" for name in self.stages)
        return letters or any(isinstance(sink.spec, Sink) and sink.spec.durable() for sink in self.sinks)

    def _held_by(self, stage: PlannedStage) -> Iterator[tuple[str, int]]:
        if isinstance(stage.spec, Source):
            return
        bounds = int(channel_of(stage.spec).bytes)
        # A record over the bound still enters an empty channel, alone.
        yield f"channel into {stage.title}", max(bounds, self.max_record)
        if isinstance(stage.spec, Batcher):
            one = int(stage.spec.max_bytes or bounds)
            yield (
                f"open batches of {stage.title}",
                max(one, self.max_record) * (stage.spec.max_keys if stage.spec.by else 1),
            )
        else:
            yield f"batches in {stage.title}", max(bounds, self.max_record) * getattr(stage.spec, "concurrency", 1)


def channel_of(spec: Stage) -> ChannelBounds:
    """Return the bounds of a stage's inbox."""
    return getattr(spec, "channel", None) or ChannelBounds()


def build_topology(name: str, config: PipelineConfig, stages: Sequence[PlannedStage]) -> Topology:
    """Return the plan of stages that were declared in Python and know their inputs.

    :raises ConfigError: with everything that is wrong with it.
    """
    found: list[tuple[str | None, Path, str]] = []

    def say(stage: str | None, where: Path, text: str) -> None:
        found.append((stage, where, text))

    check_declared(config, stages, say)
    topology = assemble(name, config, stages)
    if not found:
        check_plan(topology, stages, say)
    if found:
        called = {stage.name: f"stage '{stage.name}' ({stage.role} {stage.kind})" for stage in stages}
        raise ConfigError(*(stage_text(called.get(at or ""), path, text) for at, path, text in found))
    return topology


def assemble(name: str, config: PipelineConfig, stages: Sequence[PlannedStage]) -> Topology:
    """Return a plan that is not checked yet, its stages in order and with their outputs."""
    wires = wires_of(stages)
    outputs = outputs_of(wires)
    for stage in stages:
        stage.outputs = outputs[stage.name]
    by_name = {stage.name: stage for stage in stages}
    return Topology(name, config, {each: by_name[each] for each in in_order(wires)})


_BLOCK = 1 << 20
"""Bytes that a source reads at a time."""
