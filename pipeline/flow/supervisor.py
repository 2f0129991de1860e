"""One run from start to end: starts the actors, watches them, drains, takes the last cut, and reports."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Literal

import anyio
from msgspec import structs

from pipeline.clock import Clock, SystemClock
from pipeline.errors import DeadlineError, Exit, PipelineError, StorageError
from pipeline.flow.assembly import Actor, Assembly, Options, Reading, Share, assemble, explain
from pipeline.flow.letters import LetterStore
from pipeline.flow.steering import Steering
from pipeline.flow.watching import Watch
from pipeline.flow.witness import Witness
from pipeline.plan.topology import Topology
from pipeline.settle.checkpointer import Checkpointer, Store
from pipeline.settle.view import Readings
from pipeline.stage import Feed
from pipeline.watch.events import Events
from pipeline.watch.exposition import Metric
from pipeline.watch.history import History, Look, Recorder
from pipeline.watch.report import (
    Account,
    ChannelStatus,
    Report,
    SourceStatus,
    StageStatus,
    Status,
    find_bottleneck,
    run_entry,
    stage_status,
)
from pipeline.watch.window import Lately

__all__ = ("Options", "Share", "Supervisor", "failure_of")

_LAG_EVERY = 0.25
_PROGRESS_EVERY = 5.0

Phase = Literal["starting", "running", "draining", "finishing", "finished"]


class Supervisor:
    """Runs a topology once. All methods are for the thread of its event loop."""

    def __init__(
        self,
        topology: Topology,
        options: Options | None = None,
        *,
        clock: Clock | None = None,
        events: Events | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._topology = topology
        self._witness = witness
        self._options = options or Options()
        self._saved = topology.config.saved()
        self._clock: Clock = clock or SystemClock()
        self._events = events or Events()
        self._events.mask = topology.veil.mask
        self._assembly: Assembly | None = None
        self._checkpointer: Checkpointer | None = None
        self._scope = anyio.CancelScope()
        self._started: float | None = None
        self._before = Account()
        self._letters_before = 0
        self._phase: Phase = "starting"
        self._interrupted: Literal["", "drained", "late", "aborted"] = ""
        self._timers: list[Callable[[], None]] = []
        self._fault: PipelineError | None = None
        self._paused = False
        self._steering: Steering | None = None
        self._loop_lag = 0.0
        self._notes: list[str] = []
        specs = {name: stage.spec for name, stage in topology.stages.items()}
        self._recorder = Recorder(lambda: self._seconds, self._look, specs)
        self._watched = Watch(topology, self._clock, self._events, lambda: self._seconds, self.status)

    # --- for whoever watches and steers ---

    def drain(self, deadline: float | None = None, patience: float = 0.0) -> None:
        """Stop reading and finish what is under way, within a deadline in seconds (the pipeline's, if left out).

        Waits for another attempt, a rate or an open breaker are abandoned after ``patience`` of it, a share: 0 at once.
        What waits in a feed is read first. May be called at any time, also before the run.
        """
        if self._interrupted or self._phase in ("finishing", "finished"):
            return
        self._interrupted = "drained"
        configured: Any = self._topology.config.drain
        seconds = float(configured) if deadline is None else deadline
        if self._assembly is not None:
            self._begin_drain(seconds, patience)

    def abort(self) -> None:
        """Stop at once, without waiting for what is under way: it stays unsettled and is read again."""
        self._interrupted = "aborted"
        self._scope.cancel()

    def pause(self) -> None:
        """Read no further for now; what is under way goes on. Once a drain has begun, nothing is left to be paused."""
        if self._interrupted:
            return
        self._paused = True
        for feed in self.feeds().values():
            feed.hold()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        for feed in self.feeds().values():
            feed.go_on()
        if self._assembly is not None:
            self._assembly.run.ledger.wake()

    def tell_records(self) -> None:
        """Make an event of each record that is written; slow, for finding out what became of one."""
        self._events.records = True

    def flush(self) -> None:
        """Let every batcher send on what it has gathered."""
        if self._assembly is not None:
            for batcher in self._assembly.batchers:
                batcher.flush()

    def feeds(self) -> dict[str, Feed]:
        """Return the open sources that this process feeds, by name; none before the run has started."""
        return self._steering.feeds if self._steering is not None else {}

    @property
    def steering(self) -> Steering:
        """What changes a run on its way.

        :raises RuntimeError: before the run has started.
        """
        if self._steering is None:
            raise RuntimeError("the run has not started")
        return self._steering

    def cut_soon(self) -> None:
        """Ask for a checkpoint before the interval is over."""
        if self._checkpointer is not None:
            self._checkpointer.request()

    def set_rates(self, part: float) -> None:
        """Take a part of every rate, between 0 and 1: the rest is that of other workers."""
        if self._assembly is not None:
            self._assembly.run.rates = part

    def status(self) -> Status:
        """Return the run as it is at this moment."""
        assembly, checkpointer = self._assembly, self._checkpointer
        stages = self._stage_status()
        saved = checkpointer.last_saved if checkpointer is not None else None
        return Status(
            pipeline=self._topology.name,
            state="paused" if self._paused and self._phase == "running" else self._phase,
            seconds=self._seconds,
            account=assembly.run.ledger.account.copy() if assembly is not None else Account(),
            stages=stages,
            channels=self._channel_status(),
            sources=[self._source_status(actor) for actor in assembly.sources] if assembly is not None else [],
            dead_letters=self._dead_letters,
            bytes_held=assembly.bytes_held() if assembly is not None else 0,
            checkpoints=checkpointer.saved if checkpointer is not None else 0,
            checkpoint_age=self._clock.now() - saved if saved is not None else None,
            loop_lag=self._loop_lag,
            bottleneck=find_bottleneck(stages, self._seconds),
            lately=self.lately(),
            postponed=self._watched.postponed,
            alerts=self._watched.alerts,
            breakers={stage.name: stage.breaker for stage in stages if stage.breaker},
        )

    def left_behind(self) -> Report | None:
        """Return the report of a run that goes on although its drain's deadline has passed; else None.

        That is a stage that does not end although it is cancelled; all that is left is to end the process.
        """
        if self._interrupted != "late" or self._phase != "draining" or self._assembly is None:
            return None
        report = self._report()
        going = [f"'{stage.name}'" for stage in report.stages if stage.state == "running"]
        report.error += f"; what still runs does not end although it is cancelled: {', '.join(going) or 'a stage'}"
        return report

    def lately(self, seconds: float = 60.0) -> Lately:
        """Return what the run did in its last seconds, up to an hour: rate, share that failed, average batch."""
        return self._watched.lately(seconds)

    def measures(self) -> list[Metric]:
        """Return all metrics of the run at this moment; `pipeline.watch.exposition` makes a text of them."""
        return self._watched.measures()

    @property
    def readings(self) -> Readings | None:
        """What can be read of the state file while the run holds it; None where there is none, or not yet."""
        return self._assembly.state if self._assembly is not None else None

    def total(self) -> Account:
        """Return the account of all runs of the lineage, up to this moment."""
        return self._total() if self._assembly is not None else Account()

    def history(self) -> History:
        """Return the run over time, up to this moment."""
        return self._recorder.history()

    # --- the run ---

    async def run(self) -> Report:
        """Run to the end, and return the report, whatever the end was.

        :raises PipelineError: when the run could not be started.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._events.subscribe(self._recorder.event))
            stack.callback(self._events.subscribe(self._watched.event))
            await self._start(stack)
            if not self._options.dry_run:
                await self._run()
            self._recorder.end()
            report = await self._close(self._report())
            self._phase = "finished"
            await self._save_report(report)
            if self._interrupted != "aborted":
                await self._watched.finish()
        self._events.emit("finished", outcome=report.outcome, exit_code=report.exit_code, **report.account.as_dict())
        return report

    async def _start(self, stack: AsyncExitStack) -> None:
        assembly = await self._assemble(stack)
        self._assembly = assembly
        self._steering = Steering(assembly)
        if self._witness is not None:
            assembly.run.attend(self._witness)
        self._started = self._clock.now()
        self._recorder.begin(self._clock.wall())
        state, run = assembly.state, assembly.run
        if state is not None:
            self._letters_before = await state.count_letters()
            if assembly.cut is not None:
                self._before = Account(**assembly.cut.counters.get("account", {}))
            if self._topology.config.workers > 1 and self._options.share is None and not self._options.dry_run:
                self._note("'workers' is for the command `pipeline run`; this is one process")
            for sentence in state.changed:
                self._note(f"changed since the last run: {sentence}")
            interval: Any = self._saved.interval
            hook: Any = self._topology.config.on_dead_letter
            self._checkpointer = Checkpointer(
                self._saving(LetterStore(state, self._clock, self._note, assembly.copies, hook)),
                self._clock,
                assembly.sources,
                assembly.sinks,
                run.pending,
                run.saved,
                self._counters,
                self._learned,
                interval,
            )
            run.request_cut = self._checkpointer.request
        self._events.emit(
            "started",
            pipeline=self._topology.name,
            lineage=run.lineage,
            run=run.number,
            resumed=assembly.cut is not None,
            stages=list(self._topology.stages),
            metadata=self._topology.config.metadata,
            **self._started_with(),
        )
        self._watched.begin(assembly, self._checkpointer)
        if self._interrupted == "drained":
            configured: Any = self._topology.config.drain
            self._begin_drain(float(configured))

    async def _assemble(self, stack: AsyncExitStack) -> Assembly:
        return await assemble(
            stack, self._topology, self._options, self._clock, self._events, self._has_room, self._note
        )

    def _started_with(self) -> dict[str, Any]:
        """Return further fields of the event that the run has started."""
        return {}

    def _saving(self, store: Store) -> Store:
        """Return what saves the cuts."""
        return store

    async def _run(self) -> None:
        """Work and take the last cut, which waits for nobody who is told of the run."""
        async with anyio.create_task_group() as telling:
            self._watched.start(telling)
            await self._work()
            await self._last_cut()
            if self._interrupted == "aborted":
                telling.cancel_scope.cancel()
            self._watched.rest(telling)

    async def _work(self) -> None:
        """Run the actors until all have ended, or one of them failed."""
        assert self._assembly is not None
        if self._phase == "starting":
            self._phase = "running"
        with self._scope:
            async with anyio.create_task_group() as around:
                around.start_soon(self._watch)
                if self._checkpointer is not None:
                    around.start_soon(self._guard, "the checkpoint", self._checkpointer.run)
                async with anyio.create_task_group() as group:
                    for name, actor in self._assembly.actors():
                        group.start_soon(self._guard, name, actor)
                around.cancel_scope.cancel()
        for call_off in self._timers:
            call_off()

    async def _guard(self, name: str, actor: Actor) -> None:
        """Run an actor; an error ends the run and is told with the name of the stage."""
        assert self._assembly is not None
        metrics = self._assembly.run.metrics
        stages = [metrics[each] for each in self._assembly.wiring.fused.get(name, [name]) if each in metrics]
        for stage in stages:
            self._events.emit("stage_started", stage=stage.name, role=stage.role, workers=stage.concurrency)
        try:
            await actor()
            for stage in stages:
                failed = sum(stage.failed.values())
                counts = {"records": stage.records_in, "batches": stage.batches, "failed": failed}
                self._events.emit("stage_completed", stage=stage.name, **counts, seconds=self._seconds)
        except Exception as error:
            if self._fault is None:
                self._fault = explain(self._topology, name, error)
            self._scope.cancel()

    async def _last_cut(self) -> None:
        """Save what is settled, unless storage failed or we were told to touch nothing."""
        self._phase = "finishing"
        if self._checkpointer is None or self._interrupted == "aborted" or isinstance(self._fault, StorageError):
            return
        try:
            with anyio.CancelScope(shield=True):
                await self._checkpointer.last_cut(complete=self._fault is None and self._interrupted != "late")
        except Exception as error:
            self._fault = explain(self._topology, "the checkpoint", error)

    async def _close(self, report: Report) -> Report:
        """Close the stages, and return the report of a run that failed where one of them could not be closed."""
        assert self._assembly is not None
        await self._assembly.close()
        unclosed = self._assembly.unclosed
        if not unclosed or self._fault is not None:
            return report
        self._fault = next((each for each in unclosed if isinstance(each, StorageError)), unclosed[0])
        outcome, code, error = self._verdict()
        return structs.replace(report, outcome=outcome, exit_code=code, error=error)

    async def _save_report(self, report: Report) -> None:
        state = self._assembly.state if self._assembly is not None else None
        if state is None or isinstance(self._fault, StorageError):
            return
        saved = run_entry(report, self._recorder.history().summary)
        with anyio.CancelScope(shield=True):
            await state.finish(report.outcome, report.exit_code, saved, self._clock.wall())

    async def _watch(self) -> None:
        """Measure how late the loop is, and tell the progress now and then."""
        assert self._assembly is not None
        told = self._clock.now()
        while True:
            before = self._clock.now()
            await self._clock.sleep(_LAG_EVERY)
            now = self._clock.now()
            self._loop_lag = max(0.0, now - before - _LAG_EVERY)
            self._recorder.tick()
            self._watched.tick()
            if now - told >= _PROGRESS_EVERY:
                told = now
                account = self._assembly.run.ledger.account.as_dict()
                self._events.emit("progress", **account, seconds=self._seconds)

    def _begin_drain(self, deadline: float, patience: float = 0.0) -> None:
        assert self._assembly is not None
        self._phase = "draining"
        self._events.emit("draining", deadline=deadline)
        now = self._clock.now()
        self._timers.append(self._clock.call_at(now + deadline, self._give_up))
        run = self._assembly.run
        self._paused = False
        if patience:
            self._timers.append(self._clock.call_at(now + deadline * patience, run.drain))
            run.stop_reading()
        else:
            run.drain()

    def _give_up(self) -> None:
        self._interrupted = "late"
        self._scope.cancel()

    # --- room and pressure ---

    def _has_room(self) -> bool:
        """Tell whether a source may read another chunk; where too much is held for that, batchers flush."""
        if self._paused or self._assembly is None:
            return False
        memory: Any = self._topology.config.memory
        bound = self._saved.max_unsettled
        run = self._assembly.run
        if run.ledger.unsettled - run.held_in_groups < bound and self._assembly.bytes_held() < memory:
            return True
        for batcher in self._assembly.batchers:
            batcher.press()
        return False

    # --- what a cut holds besides points ---

    def _counters(self) -> dict[str, Any]:
        # What is unsettled is read again, and counted then.
        total = self._total()
        total.read = total.settled
        return {"account": structs.asdict(total)}

    def _learned(self) -> dict[str, Any]:
        assert self._assembly is not None
        return {batcher.name: batcher.law.learned() for batcher in self._assembly.batchers}

    # --- the report ---

    def _report(self) -> Report:
        assert self._assembly is not None
        run = self._assembly.run
        outcome, code, error = self._verdict()
        stages = self._stage_status()
        return Report(
            pipeline=self._topology.name,
            outcome=outcome,
            exit_code=code,
            account=run.ledger.account.copy(),
            total=self._total(),
            seconds=self._seconds,
            lineage=run.lineage,
            run=run.number,
            resumed=self._assembly.cut is not None,
            error=self._topology.mask(error),
            stages=stages,
            channels=self._channel_status(),
            errors=run.collected,
            dead_letters=self._dead_letters,
            records=[record for sink in self._assembly.sinks for record in getattr(sink.writer, "records", ())],
            notes=self._notes,
            bottleneck=find_bottleneck(stages, self._seconds),
        )

    def _verdict(self) -> tuple[str, int, str]:
        """Return outcome, exit code and error; of several, storage counts before the deadline before the signal."""
        assert self._assembly is not None
        run = self._assembly.run
        if self._fault is not None:
            return "failed", int(self._fault.exit_code), str(self._fault)
        if self._interrupted == "late":
            left = f"{run.ledger.account.unsettled:,} records are unsettled and will be read again"
            return "late", int(Exit.DEADLINE), f"the drain's deadline passed; {left}"
        if run.halt is not None:
            return "stopped", int(Exit.FAILED), str(run.halt)
        unsettled = run.ledger.account.unsettled
        unfinished = unsettled > 0 or any(not actor.ended and not actor.endless for actor in self._assembly.sources)
        if self._interrupted == "aborted" or (self._interrupted and unfinished):
            return "interrupted", int(Exit.TERMINATED), ""
        if unsettled:
            left = f"{unsettled:,} records were neither written nor told to fail"
            return "failed", int(Exit.FAILED), f"{left}; they will be read again"
        return ("drained" if self._interrupted else "done"), int(Exit.DONE), ""

    def _total(self) -> Account:
        assert self._assembly is not None
        here = self._assembly.run.ledger.account
        return Account(
            **{name: getattr(self._before, name) + getattr(here, name) for name in Account.__struct_fields__}
        )

    @property
    def _dead_letters(self) -> int:
        return self._letters_before + (self._assembly.run.letters_saved if self._assembly is not None else 0)

    @property
    def _seconds(self) -> float:
        return self._clock.now() - self._started if self._started is not None else 0.0

    def _stage_status(self) -> list[StageStatus]:
        if self._assembly is None:
            return []
        return [stage_status(metrics, self._seconds) for metrics in self._assembly.run.metrics.values()]

    def _channel_status(self) -> list[ChannelStatus]:
        if self._assembly is None:
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
            for name, channel in self._assembly.wiring.channels.items()
        ]

    def _look(self) -> Look:
        assert self._assembly is not None
        run, account = self._assembly.run, self._assembly.run.ledger.account
        return Look(
            self._seconds,
            account.settled,
            account.unsettled,
            fills={name: channel.fill for name, channel in self._assembly.wiring.channels.items()},
            busy={name: each.busy_seconds / each.concurrency for name, each in run.metrics.items()},
            laws={batcher.name: batcher.law.status() for batcher in self._assembly.batchers},
            triggers={batcher.name: dict(run.metrics[batcher.name].triggers) for batcher in self._assembly.batchers},
        )

    def _source_status(self, actor: Reading) -> SourceStatus:
        assert self._assembly is not None
        frontier = self._assembly.run.ledger.frontiers[actor.name]
        status = SourceStatus(actor.name, frontier.next, frontier.unsettled)
        progress = actor.reader.progress() if actor.reader is not None else None
        if progress is not None:
            status.done, status.total, status.unit = progress.done, progress.total, progress.unit
        return status

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._events.emit("warning", text=text)


def failure_of(report: Report) -> PipelineError | None:
    """Return the error that a report stands for; None for a run that ended well or was stopped early by wish."""
    if report.exit_code in (Exit.DONE, Exit.INTERRUPTED, Exit.TERMINATED):
        return None
    kinds: dict[int, type[PipelineError]] = {Exit.STORAGE: StorageError, Exit.DEADLINE: DeadlineError}
    error = kinds.get(report.exit_code, PipelineError)(report.error)
    error.exit_code = report.exit_code
    error.report = report
    return error
