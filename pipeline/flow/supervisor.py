"""One run from start to end: opens the stages, starts the actors, watches them, drains, and takes the last cut."""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

import anyio
from msgspec import structs

from pipeline.clock import Clock, SystemClock
from pipeline.errors import DeadlineError, Exit, PipelineError, StageError, StorageError
from pipeline.flow.batcher import BatcherActor
from pipeline.flow.processor import ProcessorActor
from pipeline.flow.run import Run
from pipeline.flow.sink import SinkActor
from pipeline.flow.source import SourceActor
from pipeline.flow.wiring import Wiring, held_by_sinks
from pipeline.flow.work import Step, make_step
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.settle.checkpointer import Checkpointer
from pipeline.settle.cut import Change, Cut, Letter
from pipeline.settle.keyed import KeyedChanges
from pipeline.settle.state import StateFile, open_state
from pipeline.stage import Batcher, Processor, Sink, SinkContext, Source, SourceContext, StageContext
from pipeline.watch.events import Events
from pipeline.watch.report import (
    Account,
    ChannelStatus,
    Report,
    SourceStatus,
    Status,
    find_bottleneck,
    stage_status,
)

__all__ = ("Options", "Supervisor")

_LAG_EVERY = 0.25
_PROGRESS_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """How one run is made."""

    fresh: bool = False
    accept_changes: bool = False
    repeat: bool = False
    dry_run: bool = False
    limit: int | None = None


class Supervisor:
    """Runs a topology once."""

    def __init__(
        self,
        topology: Topology,
        options: Options | None = None,
        *,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        self._topology = topology
        self._options = options or Options()
        self._clock: Clock = clock or SystemClock()
        self._events = events or Events()
        self._state: StateFile | None = None
        self._run: Run | None = None
        self._wiring: Wiring | None = None
        self._sources: list[SourceActor] = []
        self._sinks: list[SinkActor] = []
        self._batchers: list[BatcherActor] = []
        self._checkpointer: Checkpointer | None = None
        self._scope = anyio.CancelScope()
        self._started = 0.0
        self._base = Account()
        self._phase = "starting"
        self._interrupted: Literal["", "drained", "late", "aborted"] = ""
        self._deadline_timer: Callable[[], None] | None = None
        self._fault: PipelineError | None = None
        self._paused = False
        self._pressure = False
        self._loop_lag = 0.0
        self._saved_letters = 0
        self._notes: list[str] = []

    # --- for whoever watches and steers ---

    def drain(self, deadline: float | None = None) -> None:
        """Stop reading and finish what is under way, within a deadline in seconds (the pipeline's, if left out).

        May be called at any time, from the loop's thread, also before and after the run.
        """
        if self._interrupted or self._phase in ("finishing", "finished"):
            return
        self._interrupted = "drained"
        self._phase = "draining"
        if deadline is None:
            configured: Any = self._topology.config.drain
            deadline = float(configured)
        if self._run is not None:
            self._events.emit("draining", deadline=deadline)
            self._deadline_timer = self._clock.call_at(self._clock.now() + deadline, self._give_up)
            self._run.drain()

    def abort(self) -> None:
        """Stop at once, without waiting for what is under way: it stays unsettled and is read again."""
        self._interrupted = "aborted"
        self._scope.cancel()

    def pause(self) -> None:
        """Read no further for now; what is under way goes on."""
        self._paused = True

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._run is not None:
            self._run.ledger.wake()

    def flush(self) -> None:
        """Let every batcher send on what it has gathered."""
        for batcher in self._batchers:
            batcher.flush()

    def status(self) -> Status:
        """Return the run as it is at this moment."""
        seconds = self._seconds()
        run = self._run
        stages = [stage_status(metrics, seconds) for metrics in run.metrics.values()] if run is not None else []
        checkpointer = self._checkpointer
        saved = checkpointer.last_saved if checkpointer is not None else None
        return Status(
            pipeline=self._topology.name,
            state=self._phase,
            seconds=seconds,
            account=run.ledger.account.copy() if run is not None else Account(),
            stages=stages,
            channels=self._channel_status(),
            sources=[self._source_status(actor) for actor in self._sources],
            dead_letters=self._saved_letters + (len(run.letters) if run is not None else 0),
            bytes_held=self._bytes_held(),
            checkpoints=checkpointer.saved if checkpointer is not None else 0,
            checkpoint_age=self._clock.now() - saved if saved is not None else None,
            loop_lag=self._loop_lag,
            bottleneck=find_bottleneck(stages, seconds),
        )

    # --- the run ---

    async def run(self) -> Report:
        """Run to the end, and return the report, whatever the end was.

        :raises PipelineError: when the run could not be started.
        """
        async with AsyncExitStack() as stack:
            await self._open(stack)
            if self._options.dry_run:
                return self._report()
            await self._work()
            await self._finish()
            report = self._report()
            self._phase = "finished"
            if self._state is not None and not isinstance(self._fault, StorageError):
                saved = {"account": report.account.as_dict(), "seconds": report.seconds, "error": report.error}
                saved |= {"bottleneck": report.bottleneck, "stages": [structs.asdict(s) for s in report.stages]}
                await self._state.finish(report.outcome, report.exit_code, saved, self._clock.wall())
            self._events.emit(
                "finished", outcome=report.outcome, exit_code=report.exit_code, **report.account.as_dict()
            )
            return report

    async def _open(self, stack: AsyncExitStack) -> None:
        topology = self._topology
        lineage, number, cut = secrets.token_hex(8), 1, None
        if topology.checkpoint_path is not None and not self._options.dry_run:
            self._state = await stack.enter_async_context(
                open_state(
                    topology.checkpoint_path,
                    pipeline=topology.name,
                    fingerprint=topology.fingerprint(),
                    description=topology.describe(),
                    fresh=self._options.fresh,
                    accept_changes=self._options.accept_changes,
                    clock=self._clock,
                )
            )
            lineage, number, cut = self._state.lineage, self._state.run, self._state.cut
            self._saved_letters = await self._state.count_letters()
            for sentence in self._state.changed:
                self._note(f"changed since the last run: {sentence}")
        run = self._run = Run(topology, self._clock, self._events, lineage=lineage, number=number)
        self._started = self._clock.now()
        if cut is not None:
            self._base = Account(**cut.counters.get("account", {}))
        self._events.emit(
            "started",
            pipeline=topology.name,
            lineage=lineage,
            run=number,
            resumed=cut is not None,
            stages=len(topology.stages),
        )
        await self._open_sinks(stack, run, cut)
        steps = await self._open_processors(stack, run)
        wiring = self._wiring = Wiring.plan(run, steps)
        self._make_batchers(wiring, cut)
        self._actors = self._make_actors(run, wiring, steps, cut)
        run.held_by_sinks = held_by_sinks(topology, {sink.name: sink for sink in self._sinks})
        for source in self._sources:
            stack.push_async_callback(source.close)
            await self._opened(source.name, source.open())
        self._make_checkpointer(run)
        if self._interrupted:
            run.drain()

    async def _open_sinks(self, stack: AsyncExitStack, run: Run, cut: Cut | None) -> None:
        for planned in self._stages("sink"):
            spec = planned.spec
            assert isinstance(spec, Sink)
            context = await self._sink_context(run, planned, cut)
            point = cut.sinks.get(planned.name) if cut is not None else None
            # The inbox is made with the wiring, once all stages are open.
            actor = SinkActor(run, planned.name, spec, context, point)
            self._sinks.append(actor)
            stack.push_async_callback(actor.close)
            await self._opened(planned.name, actor.open())

    async def _sink_context(self, run: Run, planned: PlannedStage, cut: Cut | None) -> SinkContext:
        state, name = self._state, planned.name
        point = cut.sinks.get(name) if cut is not None else None
        context = SinkContext(
            name,
            self._topology.name,
            self._clock,
            run.lineage,
            run.number,
            warn=self._note,
            delivery=self._topology.delivery_of(name),
            position=point.position if point is not None else None,
            named=await state.named(name) if state is not None else (),
            saved=state is not None,
            fresh=self._options.fresh,
            repeat=self._options.repeat,
            dry=self._options.dry_run,
            held_from={source: point.number for source, point in cut.sources.items()} if cut is not None else {},
        )
        if state is not None:
            context.announce = lambda files: state.announce(name, files)
        return context

    async def _open_processors(self, stack: AsyncExitStack, run: Run) -> dict[str, Step]:
        steps: dict[str, Step] = {}
        for planned in self._stages("processor"):
            spec = planned.spec
            assert isinstance(spec, Processor)
            context = StageContext(
                planned.name, self._topology.name, self._clock, run.lineage, run.number, warn=self._note
            )
            if spec.stateful():
                saved = await self._state.changes_of(planned.name) if self._state is not None else []
                context.state = KeyedChanges(planned.name, run.ledger, run.changes, saved)
            work = await self._opened(planned.name, spec.open(context))
            if work.close is not None:
                stack.push_async_callback(work.close)
            steps[planned.name] = make_step(run, planned.name, spec, work)
        return steps

    def _make_batchers(self, wiring: Wiring, cut: Cut | None) -> None:
        for planned in self._stages("batcher"):
            assert isinstance(planned.spec, Batcher)
            law = planned.spec.law()
            learned = cut.learned.get(planned.name) if cut is not None else None
            if learned:
                law.restore(learned)
            actor = wiring.batcher(planned.name, law)
            self._batchers.append(actor)

    def _make_actors(
        self, run: Run, wiring: Wiring, steps: dict[str, Step], cut: Cut | None
    ) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Return the actors, sinks first, so that nothing is read before everything behind it is ready."""
        actors: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for sink in self._sinks:
            sink.inbox = wiring.channels[sink.name]
            actors.append((sink.name, sink.run))
        for names in wiring.fused.values():
            spec = self._topology.stages[names[0]].spec
            assert isinstance(spec, Processor)
            outlet = wiring.outlet(names[-1])
            actor = ProcessorActor(
                run,
                [steps[name] for name in names],
                wiring.channels[names[0]],
                outlet,
                concurrency=spec.concurrency,
                ordered=spec.ordered,
            )
            actors.append((names[0], actor.run))
        actors.extend((batcher.name, batcher.run) for batcher in self._batchers)
        for planned in self._stages("source"):
            assert isinstance(planned.spec, Source)
            record_limit: Any = self._topology.config.max_record
            context = SourceContext(
                planned.name,
                self._topology.name,
                self._clock,
                run.lineage,
                run.number,
                warn=self._note,
                max_record=record_limit,
            )
            point = cut.sources.get(planned.name) if cut is not None else None
            source = SourceActor(
                run,
                planned.name,
                planned.spec,
                context,
                wiring.outlet(planned.name),
                point,
                self._has_room,
                self._options.limit,
            )
            self._sources.append(source)
            actors.append((source.name, source.run))
        return actors

    def _make_checkpointer(self, run: Run) -> None:
        if self._state is None:
            return
        interval: Any = self._topology.config.saved().interval
        self._checkpointer = Checkpointer(
            self._state, self._clock, self._sources, self._sinks, self._pending, self._counters, self._learned, interval
        )
        run.request_cut = self._checkpointer.request

    async def _work(self) -> None:
        """Run the actors until all have ended, or one of them failed."""
        self._phase = "running" if not self._interrupted else "draining"
        with self._scope:
            try:
                async with anyio.create_task_group() as around:
                    around.start_soon(self._watch)
                    if self._checkpointer is not None:
                        around.start_soon(self._guard, "the checkpoint", self._checkpointer.run)
                    async with anyio.create_task_group() as group:
                        for name, actor in self._actors:
                            group.start_soon(self._guard, name, actor)
                    around.cancel_scope.cancel()
            finally:
                if self._deadline_timer is not None:
                    self._deadline_timer()

    async def _guard(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Run an actor; an error ends the run and is told with the name of the stage."""
        try:
            await actor()
        except Exception as error:
            if self._fault is None:
                self._fault = self._explain(name, error)
            self._scope.cancel()

    async def _finish(self) -> None:
        """Take the last cut, of what is settled, unless storage failed or we were told not to touch anything."""
        self._phase = "finishing"
        if self._checkpointer is None or self._interrupted == "aborted" or isinstance(self._fault, StorageError):
            return
        complete = not self._interrupted and self._fault is None
        try:
            with anyio.CancelScope(shield=True):
                await self._checkpointer.cut(final=complete or self._interrupted == "drained")
        except PipelineError as error:
            self._fault = error
        except Exception as error:
            self._fault = self._explain("the checkpoint", error)

    async def _watch(self) -> None:
        """Measure how late the loop is, and tell the progress now and then."""
        told = self._clock.now()
        while True:
            before = self._clock.now()
            await self._clock.sleep(_LAG_EVERY)
            now = self._clock.now()
            self._loop_lag = max(0.0, now - before - _LAG_EVERY)
            if now - told >= _PROGRESS_EVERY and self._run is not None:
                told = now
                self._events.emit("progress", **self._run.ledger.account.as_dict(), seconds=self._seconds())

    async def _opened(self, name: str, opening: Awaitable[Any]) -> Any:
        try:
            return await opening
        except PipelineError:
            raise
        except Exception as error:
            raise self._explain(name, error) from error

    def _explain(self, name: str, error: Exception) -> PipelineError:
        error = _only(error)
        if isinstance(error, PipelineError):
            return error
        planned = self._topology.stages.get(name)
        who = f"stage '{name}' ({planned.role} {planned.kind})" if planned is not None else name
        explained = StageError(f"{who}: {type(error).__name__}: {error}")
        explained.__cause__ = error
        return explained

    # --- room and pressure ---

    def _has_room(self) -> bool:
        """Tell whether a source may read another chunk; when it may not for too much held, batchers flush."""
        assert self._run is not None
        if self._paused:
            return False
        memory: Any = self._topology.config.memory
        if self._run.ledger.unsettled < self._topology.config.saved().max_unsettled and self._bytes_held() < memory:
            return True
        for batcher in self._batchers:
            batcher.press()
        return False

    def _bytes_held(self) -> int:
        channels = self._wiring.channels.values() if self._wiring is not None else ()
        return sum(channel.bytes for channel in channels) + sum(batcher.bytes for batcher in self._batchers)

    def _give_up(self) -> None:
        self._interrupted = "late"
        self._scope.cancel()

    # --- what a cut holds besides points ---

    def _pending(self) -> tuple[list[Letter], list[Change], list[int]]:
        assert self._run is not None
        letters, changes = self._run.take_pending()
        self._saved_letters += len(letters)
        return letters, changes, []

    def _counters(self) -> dict[str, Any]:
        assert self._run is not None
        settled = self._total()
        settled.read = settled.settled
        return {"account": structs.asdict(settled)}

    def _learned(self) -> dict[str, Any]:
        return {batcher.name: batcher.law.learned() for batcher in self._batchers}

    def _total(self) -> Account:
        account = self._run.ledger.account if self._run is not None else Account()
        return Account(
            **{name: getattr(self._base, name) + getattr(account, name) for name in Account.__struct_fields__}
        )

    # --- the report ---

    def _report(self) -> Report:
        run = self._run
        assert run is not None
        outcome, code, error = self._verdict()
        seconds = self._seconds()
        stages = [stage_status(metrics, seconds) for metrics in run.metrics.values()]
        return Report(
            pipeline=self._topology.name,
            outcome=outcome,
            exit_code=code,
            account=run.ledger.account.copy(),
            total=self._total(),
            seconds=seconds,
            lineage=run.lineage,
            run=run.number,
            resumed=self._state is not None and self._base.read > 0,
            error=error,
            stages=stages,
            channels=self._channel_status(),
            errors=run.collected,
            dead_letters=self._saved_letters,
            records=[record for sink in self._sinks for record in getattr(sink.writer, "records", ())],
            notes=self._notes,
            bottleneck=find_bottleneck(stages, seconds),
        )

    def _verdict(self) -> tuple[str, int, str]:
        """Return outcome, exit code and error; of several, storage counts before the deadline before the signal."""
        run = self._run
        if self._fault is not None:
            return "failed", self._fault.exit_code, str(self._fault)
        if self._interrupted == "late":
            left = f"{run.ledger.account.unsettled:,} records" if run is not None else "nothing"
            return "late", Exit.DEADLINE, f"the drain's deadline passed; {left} unsettled, read again by the next run"
        if run is not None and run.halt is not None:
            return "stopped", Exit.FAILED, str(run.halt)
        unfinished = any(not actor.ended and not self._endless(actor.name) for actor in self._sources)
        if self._interrupted == "aborted" or (self._interrupted and unfinished):
            return "interrupted", Exit.TERMINATED, ""
        return ("drained" if self._interrupted else "done"), Exit.DONE, ""

    def _endless(self, name: str) -> bool:
        spec = self._topology.stages[name].spec
        return isinstance(spec, Source) and spec.endless()

    def _channel_status(self) -> list[ChannelStatus]:
        if self._wiring is None:
            return []
        return [
            ChannelStatus(
                name,
                len(channel),
                channel.records,
                channel.bytes,
                channel.fill,
                channel.peak_records,
                channel.blocked_seconds,
            )
            for name, channel in self._wiring.channels.items()
        ]

    def _source_status(self, actor: SourceActor) -> SourceStatus:
        assert self._run is not None
        frontier = self._run.ledger.frontiers[actor.name]
        status = SourceStatus(actor.name, frontier.next, frontier.unsettled)
        progress = actor.reader.progress() if actor.reader is not None else None
        if progress is not None:
            status.done, status.total, status.unit = progress.done, progress.total, progress.unit
        return status

    def _stages(self, role: str) -> list[PlannedStage]:
        return [planned for planned in self._topology.stages.values() if planned.role == role]

    def _seconds(self) -> float:
        return self._clock.now() - self._started if self._started else 0.0

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._events.emit("warning", text=text)


def _only(error: Exception) -> Exception:
    """Return the error that a group of one is about."""
    if isinstance(error, ExceptionGroup):
        inner = cast(tuple[Exception, ...], error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        if len(inner) == 1:
            return _only(inner[0])
    return cast(Exception, error)


def failure_of(report: Report) -> PipelineError | None:
    """Return the error that a report stands for, None for a run that ended well."""
    kinds = {Exit.STORAGE: StorageError, Exit.DEADLINE: DeadlineError}
    if report.exit_code in (Exit.DONE, Exit.INTERRUPTED, Exit.TERMINATED):
        return None
    error = kinds.get(Exit(report.exit_code), PipelineError)(report.error)
    error.exit_code = report.exit_code
    error.report = report
    return error
