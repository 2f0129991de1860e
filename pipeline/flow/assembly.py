"""Opens the stages of a topology where the last checkpoint left them, and makes their actors."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import Struct

from pipeline.cause import cause_of
from pipeline.clock import Clock
from pipeline.control.policy import Kind, classify
from pipeline.errors import PipelineError, StageError, StateError, StorageError
from pipeline.flow.batcher import BatcherActor
from pipeline.flow.letters import Copies, copies_name, open_copies
from pipeline.flow.processor import ProcessorActor
from pipeline.flow.replay import LettersActor
from pipeline.flow.restart import root_of
from pipeline.flow.run import Run
from pipeline.flow.sink import SinkActor
from pipeline.flow.source import SourceActor
from pipeline.flow.step import Step
from pipeline.flow.wiring import Wiring, held_by_sinks
from pipeline.flow.work import make_step
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.projection import Seal
from pipeline.settle.cut import Cut
from pipeline.settle.keyed import KeyedChanges
from pipeline.settle.preview import preview_state
from pipeline.settle.state import StateFile, open_state
from pipeline.stage import Batcher, Processor, Sink, SinkContext, Source, SourceContext, StageContext, Writer
from pipeline.watch.events import Events

__all__ = ("Assembly", "Options", "Reading", "Share", "assemble", "explain", "open_run_state", "open_stages")

Actor = Callable[[], Awaitable[None]]
Reading = SourceActor | LettersActor
"""What feeds a run: the pipeline's own source, or its dead letters."""


class Share(Struct, frozen=True):
    """What a worker runs of a pipeline: a partition of its source, and of every rate only a part.

    ``partition`` is what `Partition.what` says, ``rates`` the part of 1.
    """

    partition: Any
    rates: float = 1.0


class Options(Struct, frozen=True):
    """How one run is made; the arguments of `Pipeline.run`. ``share`` is a worker's."""

    fresh: bool = False
    accept_changes: bool = False
    repeat: bool = False
    dry_run: bool = False
    limit: int | None = None
    share: Share | None = None


@dataclass(slots=True)
class Assembly:
    """A run that is ready to start: its stages are open and have actors. ``cut`` is where it goes on from."""

    run: Run
    options: Options
    state: StateFile | None
    cut: Cut | None
    stages: AsyncExitStack
    """Closes the stages, in the order opposite to the one in which they were opened."""
    wiring: Wiring = field(init=False)
    sources: list[Reading] = field(default_factory=list[Reading])
    batchers: list[BatcherActor] = field(default_factory=list[BatcherActor])
    processors: list[ProcessorActor] = field(default_factory=list[ProcessorActor])
    sinks: list[SinkActor] = field(default_factory=list[SinkActor])
    copies: Copies | None = None
    """The sink of the letters, which is no part of the topology."""
    unclosed: list[PipelineError] = field(default_factory=list[PipelineError])
    """Why stages could not be closed."""

    def actors(self) -> list[tuple[str, Actor]]:
        """Return name and run of each actor, sinks first: nothing is read before everything behind it is ready."""
        found: list[tuple[str, Actor]] = [(sink.name, sink.run) for sink in self.sinks]
        found += [(processor.name, processor.run) for processor in self.processors]
        found += [(batcher.name, batcher.run) for batcher in self.batchers]
        return found + [(source.name, source.run) for source in self.sources]

    def closes(self, name: str, close: Actor) -> None:
        """Close a stage with the others; one that fails keeps nobody else from being closed."""

        async def closed() -> None:
            try:
                await close()
            except Exception as error:
                self.unclosed.append(explain(self.run.topology, name, error, "closing it failed: "))

        self.stages.push_async_callback(closed)

    async def close(self) -> None:
        """Close the stages now; what fails then is in ``unclosed``."""
        await self.stages.aclose()

    def bytes_held(self) -> int:
        """Return the bytes of all records between sources and sinks."""
        held = 0
        for channel in self.wiring.channels.values():
            held += channel.bytes
        for batcher in self.batchers:
            held += batcher.bytes
        return held


async def assemble(
    stack: AsyncExitStack,
    topology: Topology,
    options: Options,
    clock: Clock,
    events: Events,
    has_room: Callable[[], bool],
    warn: Callable[[str], None],
) -> Assembly:
    """Open the state file and all stages; whatever was opened is closed by the stack.

    A sink or a source that refuses leaves the state file as it was.

    :raises PipelineError: names the stage that can't be opened and why.
    """
    state = await open_run_state(stack, topology, options, clock)
    if state is not None and not options.dry_run and await state.partitions():
        path = topology.checkpoint_path
        raise StateError(
            f"{path}: workers began this, in partitions; `pipeline run` goes on, or begin anew with --fresh"
        )
    lineage, number = (state.lineage, state.run) if state is not None else (os.urandom(8).hex(), 1)
    run = Run(topology, clock, events, lineage=lineage, number=number)
    run.has_state = state is not None
    if options.share is not None:
        run.shared, run.rates = True, options.share.rates
    stages = await stack.enter_async_context(AsyncExitStack())
    assembly = Assembly(run, options, state, state.cut if state is not None else None, stages)
    readers = [await _open_source(assembly, planned, has_room, warn) for planned in _stages(topology, "source")]
    await open_stages(assembly, warn)
    for reader in readers:
        reader.outlet = assembly.wiring.outlet(reader.name)
    return assembly


async def open_stages(assembly: Assembly, warn: Callable[[str], None]) -> None:
    """Open everything behind the sources, which know their first numbers, and make its actors.

    :raises PipelineError: names the stage that can't be opened and why.
    """
    run, state, topology, options = assembly.run, assembly.state, assembly.run.topology, assembly.options
    if assembly.cut is None and not options.dry_run:
        # Whoever opens for the first time may empty something; first all must have said that they would.
        for planned in _stages(topology, "sink"):
            await _try_sink(assembly, planned)
        tried = await _open_copies(assembly, lambda text: None, dry=True)
        if tried is not None:
            await tried.close()
    for planned in _stages(topology, "sink"):
        await _open_sink(assembly, planned, warn)
    if state is not None:
        assembly.copies = await _open_copies(assembly, warn, dry=options.dry_run)
        if assembly.copies is not None:
            assembly.closes("dead_letter", assembly.copies.close)
        if not options.dry_run:
            await state.begin()
        run.room_for_letters = topology.config.letters().max - await state.count_letters()
    steps = {planned.name: await _open_processor(assembly, planned, warn) for planned in _stages(topology, "processor")}
    prompt = [source.name for source in assembly.sources if isinstance(source, SourceActor) and source.prompt]
    assembly.wiring = Wiring.plan(run, steps, prompt)
    _make_actors(assembly, steps)
    run.held_by_sinks = held_by_sinks(topology, {sink.name: sink for sink in assembly.sinks})


def explain(topology: Topology, name: str, error: Exception, doing: str = "") -> PipelineError:
    """Return the error to end with: ours as it is, anything else with the name of the stage that it came from.

    ``doing`` is what failed, where that is not its work: ``closing it failed: ``.
    """
    error = root_of(error)
    if isinstance(error, PipelineError):
        return error
    planned = topology.stages.get(name)
    who = f"stage '{name}' ({planned.role} {planned.kind})" if planned is not None else name
    kind = StorageError if isinstance(error, OSError) and classify(error) is Kind.FAULT else StageError
    explained = kind(f"{who}: {doing}{cause_of(error)}")
    explained.__cause__ = error
    return explained


async def open_run_state(stack: AsyncExitStack, topology: Topology, options: Options, clock: Clock) -> StateFile | None:
    """Open the state file of a run, with nothing written yet; None for a run without one. The stack closes it.

    :raises PipelineError: when it is held, damaged, or of other stages.
    """
    if topology.checkpoint_path is None:
        return None
    opening = preview_state if options.dry_run else partial(open_state, begin=False)
    opened = opening(
        topology.checkpoint_path,
        pipeline=topology.name,
        fingerprint=topology.fingerprint(),
        description=topology.describe(),
        fresh=options.fresh,
        accept_changes=options.accept_changes,
        clock=clock,
    )
    return await stack.enter_async_context(opened)


async def _open_sink(assembly: Assembly, planned: PlannedStage, warn: Callable[[str], None]) -> None:
    assert isinstance(planned.spec, Sink)
    run, cut = assembly.run, assembly.cut
    context = await _sink_context(assembly, planned.name, warn, assembly.options.dry_run)
    context.delivery = run.topology.delivery_of(planned.name)
    point = cut.sinks.get(planned.name) if cut is not None else None
    actor = SinkActor(run, planned.name, planned.spec, context, point)
    assembly.sinks.append(actor)
    assembly.closes(planned.name, actor.close)
    await _opened(run.topology, planned.name, actor.open())


async def _try_sink(assembly: Assembly, planned: PlannedStage) -> None:
    """Open a sink as a dry run would, to hear whether it refuses, and close it again."""
    assert isinstance(planned.spec, Sink)
    context = await _sink_context(assembly, planned.name, lambda text: None, dry=True)
    context.delivery = assembly.run.topology.delivery_of(planned.name)
    writer: Writer = await _opened(assembly.run.topology, planned.name, planned.spec.open(context))
    await _opened(assembly.run.topology, planned.name, writer.close())


async def _open_copies(assembly: Assembly, warn: Callable[[str], None], dry: bool) -> Copies | None:
    spec, state = assembly.run.topology.config.letters().sink, assembly.state
    if spec is None or state is None:
        return None
    context = await _sink_context(assembly, copies_name(spec), warn, dry)
    copies: Copies = await _opened(assembly.run.topology, "dead_letter", open_copies(spec, context))
    return copies


async def _sink_context(assembly: Assembly, name: str, warn: Callable[[str], None], dry: bool) -> SinkContext:
    run, state, cut, options = assembly.run, assembly.state, assembly.cut, assembly.options
    point = cut.sinks.get(name) if cut is not None else None
    # A source that has no part in this run stays where it is; what a sink holds of it may come again later.
    elsewhere = {source: each.number for source, each in cut.sources.items()} if cut is not None else {}
    context = SinkContext(
        name,
        run.topology.name,
        run.clock,
        run.lineage,
        run.number,
        warn=warn,
        position=point.position if point is not None else None,
        named=await state.named(name) if state is not None else (),
        saved=state is not None,
        fresh=options.fresh,
        repeat=options.repeat,
        dry=dry,
        held_from=elsewhere | {source.name: source.first_number for source in assembly.sources},
    )
    if name in run.topology.stages:
        context.nonfinite = run.topology.nonfinite(name)
    if state is not None and not dry:
        context.announce = lambda files: state.announce(name, files)
    return context


async def _open_processor(assembly: Assembly, planned: PlannedStage, warn: Callable[[str], None]) -> Step:
    assert isinstance(planned.spec, Processor)
    run, state = assembly.run, assembly.state
    context = StageContext(planned.name, run.topology.name, run.clock, run.lineage, run.number, warn=warn)
    if planned.spec.stateful():
        saved = await state.changes_of(planned.name) if state is not None else []
        context.state = KeyedChanges(planned.name, run.ledger, run.changes if state is not None else None, saved)
    work = await _opened(run.topology, planned.name, planned.spec.open(context))
    step = make_step(run, planned.name, planned.spec, work)
    spec = planned.spec
    step.reopen = lambda: spec.open(context)
    assembly.closes(planned.name, step.close)
    return step


async def _open_source(
    assembly: Assembly,
    planned: PlannedStage,
    has_room: Callable[[], bool],
    warn: Callable[[str], None],
) -> SourceActor:
    assert isinstance(planned.spec, Source)
    run, cut = assembly.run, assembly.cut
    largest: Any = run.topology.config.max_record
    context = SourceContext(
        planned.name, run.topology.name, run.clock, run.lineage, run.number, warn=warn, max_record=largest
    )
    context.projection = run.topology.projections.get(planned.name)
    context.widened = run.topology.widened.get(planned.name)
    if assembly.options.share is not None:
        context.partition = assembly.options.share.partition
    point = cut.sources.get(planned.name) if cut is not None else None
    actor = SourceActor(run, planned.name, planned.spec, context, point, has_room, assembly.options.limit)
    assembly.sources.append(actor)
    assembly.closes(planned.name, actor.close)
    await _opened(run.topology, planned.name, actor.open())
    return actor


async def _opened(topology: Topology, name: str, opening: Awaitable[Any]) -> Any:
    try:
        return await opening
    except Exception as error:
        raise explain(topology, name, error) from error


def _make_actors(assembly: Assembly, steps: dict[str, Step]) -> None:
    run, wiring, cut = assembly.run, assembly.wiring, assembly.cut
    seals = {projection.last: Seal(projection) for projection in run.topology.projections.values()}
    for sink in assembly.sinks:
        sink.inbox = wiring.channels[sink.name]
    for names in wiring.fused.values():
        spec = run.topology.stages[names[0]].spec
        assert isinstance(spec, Processor)
        inbox, outlet = wiring.channels.get(names[0]), wiring.outlet(names[-1])
        fused = [steps[name] for name in names]
        actor = ProcessorActor(
            run,
            fused,
            inbox,
            outlet,
            concurrency=spec.concurrency,
            ordered=spec.ordered,
            seal=seals.get(names[-1]),
        )
        assembly.processors.append(actor)
        if inbox is None:
            wiring.inline[names[0]] = actor
    for planned in _stages(run.topology, "batcher"):
        assert isinstance(planned.spec, Batcher)
        law = planned.spec.law()
        learned = cut.learned.get(planned.name) if cut is not None else None
        if learned:
            law.restore(learned)
        assembly.batchers.append(wiring.batcher(planned.name, law))


def _stages(topology: Topology, role: str) -> list[PlannedStage]:
    return [planned for planned in topology.stages.values() if planned.role == role]
