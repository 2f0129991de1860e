"""Runs a pipeline by several workers: gives them partitions, starts them again, drains them, and adds up."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

import anyio

from pipeline.clock import Clock, SystemClock
from pipeline.errors import Exit, PipelineError, StorageError
from pipeline.plan.topology import Topology
from pipeline.settle.cut import SourcePoint
from pipeline.settle.state import StateFile, open_state
from pipeline.units import format_size
from pipeline.watch.events import Events
from pipeline.watch.history import History, Look, Recorder
from pipeline.watch.report import Account, Report, Status, find_bottleneck, run_entry
from pipeline.watch.words import counted
from pipeline.workers.books import Books
from pipeline.workers.child import Child
from pipeline.workers.merging import Merging
from pipeline.workers.patience import Patience
from pipeline.workers.plan import fingerprint_of, shared_sinks
from pipeline.workers.reserve import Reserve
from pipeline.workers.room import Room
from pipeline.workers.slot import Slot, Work
from pipeline.workers.tally import Tally
from pipeline.workers.words import Assign, Drain, Ended, Progress, Rates, Said, Setup
from pipeline.workers.writing import Writing

__all__ = ("Coordinator", "Plan")

_GRACE = 2.0
"""Seconds beyond the deadline of a drain for which a worker's last word is waited for."""
_TICK = 0.25
_COLLECTED = 1000

Phase = Literal["starting", "running", "draining", "finishing", "finished"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run, and how its config was named: each worker reads it again."""

    topology: Topology
    config: str
    settings: tuple[str, ...] = ()
    allow_code: tuple[str, ...] = ()
    fresh: bool = False
    repeat: bool = False


class Coordinator:
    """One run by workers. It is watched and steered like a `Supervisor`; each method is for its loop's thread."""

    def __init__(
        self, plan: Plan, reserve: Reserve, *, events: Events | None = None, clock: Clock | None = None
    ) -> None:
        self._plan = plan
        self._reserve = reserve
        self._topology = plan.topology
        self._events = events or Events()
        self._clock: Clock = clock or SystemClock()
        self._tally = Tally(plan.topology)
        self._books: Books | None = None
        self._merging: Merging | None = None
        self._writing: Writing | None = None
        self._setup: Setup
        self._room: Room
        self._pending: deque[int] = deque()
        self._finished: deque[tuple[int, int]] = deque()
        self._news = asyncio.Event()
        self._all_ended = False
        self._slots: list[Slot] = []
        self._patience = Patience()
        self._scope = anyio.CancelScope()
        self._phase: Phase = "starting"
        self._interrupted: Literal["", "drained", "late", "aborted"] = ""
        self._stopping = False
        self._late: Any = lambda: None
        self._failures: list[tuple[int, str, str]] = []
        self._fault: PipelineError | None = None
        self._collected: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._letters = 0
        self._started: float | None = None
        specs = {name: stage.spec for name, stage in self._topology.stages.items()}
        self._recorder = Recorder(lambda: self._seconds, self._look, specs)

    # --- for whoever watches and steers ---

    def drain(self, deadline: float | None = None) -> None:
        """Give out no more partitions and let every worker finish what is under way, within a deadline in seconds."""
        if self._interrupted or self._phase in ("finishing", "finished"):
            return
        self._interrupted = "drained"
        self._phase = "draining" if self._started is not None else self._phase
        self._stop(deadline)

    def abort(self) -> None:
        """Stop at once: what is under way stays unsettled and is read again."""
        self._interrupted = "aborted"
        self._stopping = True
        self._kill()
        self._scope.cancel()

    def status(self) -> Status:
        """Return the run as it is at this moment: all workers together."""
        stages = self._tally.stages()
        books, account = self._books, self._account()
        sources = []
        if books is not None and len(books):
            sources = [self._tally.source(books.done_size(), books.size(), account.unsettled, books.total().read)]
        return Status(
            pipeline=self._topology.name,
            state=self._phase,
            seconds=self._seconds,
            account=account,
            stages=stages,
            channels=[],
            sources=sources,
            dead_letters=self._letters + account.dead_lettered,
            bytes_held=self._tally.bytes_held(),
            checkpoints=self._merging.saved if self._merging is not None else 0,
            checkpoint_age=None,
            loop_lag=self._tally.loop_lag(),
            bottleneck=find_bottleneck(stages, self._seconds),
        )

    def tell_records(self) -> None:
        """Make an event of each record that a worker writes; to be called before the run."""
        self._events.records = True

    def left_behind(self) -> Report | None:
        """Return None: a worker that does not end is killed."""
        return None

    def history(self) -> History:
        """Return the run over time, up to this moment."""
        return self._recorder.history()

    # --- the run ---

    async def run(self) -> Report:
        """Run all partitions, merge what is to be merged, and return the report, whatever the end was.

        :raises PipelineError: when the run could not be started.
        """
        async with AsyncExitStack() as stack:
            state = await self._open(stack)
            with self._scope:
                await self._work()
            self._late()
            self._kill()
            self._phase = "finishing"
            if not isinstance(self._fault, StorageError) and self._interrupted != "aborted":
                with anyio.CancelScope(shield=True):
                    await self._last_cut()
            self._recorder.end()
            report = await self._report(state)
            self._phase = "finished"
            await self._save_report(state, report)
        self._events.emit("finished", outcome=report.outcome, exit_code=report.exit_code, **report.account.as_dict())
        return report

    async def _open(self, stack: AsyncExitStack) -> StateFile:
        topology, plan = self._topology, self._plan
        assert topology.checkpoint_path is not None
        opening = open_state(
            topology.checkpoint_path,
            pipeline=topology.name,
            fingerprint=topology.fingerprint(),
            description=topology.describe(),
            fresh=plan.fresh,
            clock=self._clock,
            begin=False,
        )
        state = await stack.enter_async_context(opening)
        self._setup = self._set_up(state)
        books = self._books = Books(topology, state)
        await books.open()
        merging = self._merging = Merging(topology, state, self._setup, books, self._clock, self._events)
        await merging.open(stack)
        await state.begin()
        await books.divide()
        await books.clear_leftovers(merging.merged)
        self._started = self._clock.now()
        self._recorder.begin(self._clock.wall())
        self._pending.extend(books.pending())
        self._events.emit(
            "started",
            pipeline=topology.name,
            lineage=state.lineage,
            run=state.run,
            resumed=books.resumed,
            stages=list(topology.stages),
            workers=self._wanted(),
            partitions=len(books),
        )
        self._tell_of_idle(len(books))
        for number in self._pending:
            await books.take_letters(number)
        self._letters = await state.count_letters()
        self._room = Room(topology.config.letters().max, self._letters)
        if shared_sinks(topology):
            self._writing = Writing(self._setup, self._reserve, self._hear, lambda: books.total().settled)
            await self._writing.open(stack)
        return state

    def _tell_of_idle(self, partitions: int) -> None:
        """Say why there are fewer processes than were asked for."""
        config = self._topology.config
        if 0 < partitions < config.workers:
            there_is = counted(partitions, "partition", "partitions")
            size = format_size(cast(int, config.partition))
            text = f"{there_is} for {config.workers} workers: a partition has {size} or less (`partition: {size}`), and"
            self._events.emit("notice", text=f"{text} a compressed file is one")

    def _set_up(self, state: StateFile) -> Setup:
        plan, cut = self._plan, state.cut
        return Setup(
            config=plan.config,
            settings=plan.settings,
            allow_code=plan.allow_code,
            fingerprint=fingerprint_of(self._topology),
            lineage=state.lineage,
            run=state.run,
            fresh=plan.fresh,
            repeat=plan.repeat,
            records=self._events.records,
            positions={name: point.position for name, point in cut.sinks.items()} if cut is not None else {},
            frontiers=self._frontiers(cut.sources) if cut is not None else {},
        )

    def _frontiers(self, points: Mapping[str, SourcePoint]) -> dict[str, int]:
        return {name: point.number for name, point in points.items() if name not in self._topology.stages}

    def _wanted(self) -> int:
        return min(self._topology.config.workers, len(self._pending))

    async def _work(self) -> None:
        if self._phase == "starting":
            self._phase = "running"
        async with anyio.create_task_group() as around:
            around.start_soon(self._watch)
            if self._writing is not None and self._pending:
                around.start_soon(self._guard, self._writing.run)
            async with anyio.create_task_group() as group:
                group.start_soon(self._guard, self._settle)
                async with anyio.create_task_group() as slots:
                    for _ in range(self._wanted()):
                        slots.start_soon(self._guard, self._run_slot)
                self._all_ended = True
                self._news.set()
            around.cancel_scope.cancel()

    async def _guard(self, work: Any) -> None:
        """Run a part of the coordinator; an error of it ends the run."""
        try:
            await work()
        except PipelineError as error:
            self._fault = self._fault or error
            self._stop()
            if isinstance(error, StorageError):
                self._kill()

    async def _settle(self) -> None:
        """Take the partitions that have ended into the books, and merge them when it is their turn."""
        assert self._books is not None and self._merging is not None
        with anyio.CancelScope(shield=True):
            await self._merging.go_on()
        while self._finished or not self._all_ended:
            self._news.clear()
            while self._finished:
                with anyio.CancelScope(shield=True):
                    number, letters = self._finished.popleft()
                    await self._books.finish(number, letters)
                    await self._merging.go_on()
            if not self._all_ended:
                await self._news.wait()

    async def _last_cut(self) -> None:
        assert self._books is not None and self._merging is not None
        try:
            for number in self._books.pending():
                await self._books.take_letters(number)
            await self._books.remove_folders()
            await self._merging.cut(final=True)
        except PipelineError as error:
            self._fault = self._fault or error

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(_TICK)
            self._recorder.tick()

    # --- workers ---

    async def _run_slot(self) -> None:
        books = self._books
        assert books is not None
        work = Work(
            take=self._take,
            assign=self._assign,
            hear=self._hear,
            ended=self._end,
            lost=self._lose,
            settled=books.settled,
            title=books.title,
            stopping=lambda: self._stopping,
        )
        slot = Slot(self._setup, work, self._patience, self._reserve)
        self._slots.append(slot)
        try:
            await slot.run()
        finally:
            self._slots.remove(slot)
            for other in self._children():
                other.say(Rates(rates=1 / max(len(self._slots), 1)))

    def _take(self) -> int | None:
        return self._pending.popleft() if self._pending and not self._stopping else None

    async def _assign(self, number: int) -> Assign:
        assert self._books is not None
        if self._writing is not None:
            await self._writing.ready()
        return Assign(
            number=number,
            what=self._books[number].partition.what,
            state=str(self._books.state_of(number)),
            rates=1 / max(len(self._slots), 1),
            memory=self._topology.memory_bound // self._topology.config.workers,
            letters=self._room.part(number, len(self._slots)),
            socket=self._writing.socket if self._writing is not None else "",
        )

    def _end(self, ended: Ended) -> None:
        assert self._books is not None
        number, report = ended.number, ended.report
        if report is not None:
            self._books.count(number, ended.total)
            self._tally.end(number, report.stages, report.seconds)
            self._room.end(number, report.dead_letters)
            self._collected += report.errors
            self._notes += [note for note in report.notes if note not in self._notes]
        if report is not None and ended.code == Exit.DONE:
            self._finished.append((number, report.dead_letters))
            self._news.set()
        elif ended.code not in (Exit.DONE, Exit.TERMINATED):
            outcome = report.outcome if report is not None else "failed"
            error = f"{self._books.title(number)}: {ended.error}"
            self._failures.append((ended.code, outcome, error))
            self._stop()

    def _lose(self, number: int, how: str) -> None:
        self._tally.forget(number)
        assert self._books is not None
        self._events.emit("warning", text=f"the worker of {self._books.title(number)} {how}; started again")

    def _children(self) -> list[Child]:
        return [slot.child for slot in self._slots if slot.child is not None]

    def _stop(self, deadline: float | None = None) -> None:
        """Give out nothing more, and have the workers finish what is under way."""
        if self._stopping:
            return
        self._stopping = True
        if self._writing is not None:
            self._writing.give_up()
        configured: Any = self._topology.config.drain
        seconds = float(configured) if deadline is None else deadline
        if self._started is not None:
            self._events.emit("draining", deadline=seconds)
            self._late = self._clock.call_at(self._clock.now() + seconds + _GRACE, self._give_up)
        for child in self._children():
            child.say(Drain(deadline=seconds))

    def _give_up(self) -> None:
        self._interrupted = "late"
        self._kill()
        self._scope.cancel()

    def _kill(self) -> None:
        for child in self._children():
            child.kill()

    def _hear(self, said: Said | Progress) -> None:
        if isinstance(said, Progress):
            if self._books is not None:
                self._books.count(said.number, said.total)
            self._tally.progress(said.number, said.status)
            return
        if said.name == "warning":
            self._notes.append(str(said.fields.get("text")))
        self._events.emit(said.name, **said.fields)

    # --- the report ---

    async def _report(self, state: StateFile) -> Report:
        assert self._books is not None
        outcome, code, error = self._verdict()
        stages = self._tally.stages()
        return Report(
            pipeline=self._topology.name,
            outcome=outcome,
            exit_code=code,
            account=self._account(),
            total=self._books.total(),
            seconds=self._seconds,
            lineage=state.lineage,
            run=state.run,
            resumed=self._books.resumed,
            error=error,
            stages=stages,
            errors=self._collected[:_COLLECTED],
            dead_letters=await state.count_letters(),
            notes=self._notes,
            bottleneck=find_bottleneck(stages, self._seconds),
        )

    async def _save_report(self, state: StateFile, report: Report) -> None:
        if isinstance(self._fault, StorageError):
            return
        saved = run_entry(report, self._recorder.history().summary)
        with anyio.CancelScope(shield=True):
            await state.finish(report.outcome, report.exit_code, saved, self._clock.wall())

    def _verdict(self) -> tuple[str, int, str]:
        """Return outcome, exit code and error; of several, storage counts before the deadline before the signal."""
        assert self._books is not None
        if self._fault is not None:
            return "failed", int(self._fault.exit_code), str(self._fault)
        for code in (Exit.STORAGE, Exit.DEADLINE):
            for found, outcome, error in self._failures:
                if found == code:
                    return outcome, found, error
        left = f"{self._account().unsettled:,} records are unsettled and will be read again"
        if self._interrupted == "late":
            return "late", int(Exit.DEADLINE), f"the drain's deadline passed; {left}"
        if self._failures:
            found, outcome, error = self._failures[0]
            return outcome, found, error
        if self._interrupted == "aborted" or (self._interrupted and self._books.pending()):
            return "interrupted", int(Exit.TERMINATED), ""
        return ("drained" if self._interrupted else "done"), int(Exit.DONE), ""

    def _account(self) -> Account:
        return self._books.account() if self._books is not None else Account()

    @property
    def _seconds(self) -> float:
        return self._clock.now() - self._started if self._started is not None else 0.0

    def _look(self) -> Look:
        account = self._account()
        workers = max(len(self._slots), 1)
        busy = {name: seconds / workers for name, seconds in self._tally.busy().items()}
        return Look(self._seconds, account.settled, account.unsettled, fills=self._tally.fills(), busy=busy)
