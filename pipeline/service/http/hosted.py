"""One pipeline of the server: started, watched and ended by itself, whatever becomes of the others."""

import sqlite3
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from msgspec import structs

from pipeline.clock import Clock, SystemClock
from pipeline.errors import ConfigError, Exit, PipelineError
from pipeline.flow.entries import Replay
from pipeline.flow.supervisor import Supervisor
from pipeline.pipeline import Pipeline
from pipeline.plan.load import Loaded
from pipeline.service.http.kept import KeptBatches
from pipeline.service.http.looking import account_view, source_views, stage_views
from pipeline.service.http.recent import BatchLog, Meter, quantile
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import (
    Alert,
    PipelineView,
    Point,
    Rates,
    ReplayRequest,
    State,
    Statistics,
    Submitted,
)
from pipeline.service.service import Service
from pipeline.settle.letters import Wanted
from pipeline.stage import Source
from pipeline.watch.exposition import Metric
from pipeline.watch.log import masked
from pipeline.watch.report import Report, Status

__all__ = ("Hosted", "Listener")

Listener = Callable[[str, str, Mapping[str, Any]], None]
"""Called with the pipeline's name, a log event and its fields, in the turn of the loop; must not wait."""

_POINTS = 300
_SILENT = {"batch", "progress"}
"""Log events that come too often to be told one by one."""


class Hosted:
    """A pipeline that can be started again and again. For one event loop.

    ``reload`` reads its config again, so that what made it fail can be mended before it is started anew.
    """

    def __init__(
        self, loaded: Loaded, reload: Callable[[], Loaded], tell: Listener, clock: Clock | None = None
    ) -> None:
        self.name = loaded.config.name
        self._loaded = loaded
        self._reload = reload
        self._tell = tell
        self._clock: Clock = clock or SystemClock()
        self._supervisor: Supervisor | None = None
        self._service: Service | None = None
        self._status: Status | None = None
        self._state: State = "stopped"
        self._since = self._clock.wall()
        self._paused = False
        self._leaving = False
        self._started = anyio.Event()
        self._asked: _Asked | None = None
        self._error = ""
        self._code = 0
        self._run = 0
        self._lineage = ""
        self._resumed = False
        self._batches = self._log()
        self._kept: KeptBatches | None = KeptBatches(loaded.topology.checkpoint_path)
        self._meter = Meter()
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._alerts: dict[str, float] = {}
        self._measures: list[Metric] = []

    # --- steering ---

    async def run(self) -> None:
        """Run the pipeline whenever it is started, until `leave`."""
        await self._remember()
        while not self._leaving:
            await self._started.wait()
            self._started = anyio.Event()
            asked, self._asked = self._asked, None
            if asked is not None:
                await self._replay(asked)
            elif not self._leaving:
                await self._once()
        await self.keep()

    def start(self) -> None:
        """Start it, with its config as it is now.

        :raises RequestRefused: when it runs already, when the server is about to end, or when its config is wrong.
        """
        if self._leaving:
            raise RequestRefused("ending", "the server is about to end")
        if self._supervisor is not None:
            raise RequestRefused("running", f"pipeline '{self.name}' is {self.state} already")
        if self._error or self._state != "stopped":
            self._read_again()
        self._enter("starting")
        self._started.set()

    async def replay(self, wanted: ReplayRequest) -> Report:
        """Replay dead letters: a run is drained for that, because it holds the state, and started again afterwards.

        :raises RequestRefused: when that can't be done now.
        """
        if self._leaving:
            raise RequestRefused("ending", "the server is about to end")
        if self._asked is not None or self._state in ("starting", "draining", "replaying"):
            raise RequestRefused("busy", f"pipeline '{self.name}' is {self._state}; try again when that is over")
        asked = self._asked = _Asked(wanted, self._state in ("running", "paused"))
        if self._supervisor is not None:
            self._begin_drain(None)
        self._started.set()
        await asked.done.wait()
        if asked.report is None:
            raise RequestRefused("replay", asked.error or "the server ended before the replay began")
        return asked.report

    def pause(self) -> None:
        """Read no further for now.

        :raises RequestRefused: when it does not run.
        """
        self._running().pause()
        self._paused = True
        self._enter("paused")

    def resume(self) -> None:
        """Read on.

        :raises RequestRefused: when it does not run.
        """
        self._running().resume()
        self._paused = False
        self._enter("running")

    def flush(self) -> None:
        """Let the batchers send on what they have gathered.

        :raises RequestRefused: when it does not run.
        """
        self._running().flush()

    def drain(self, deadline: float | None = None) -> None:
        """Finish what is under way and stop.

        :raises RequestRefused: when it does not run.
        """
        self._running()
        self._begin_drain(deadline)

    def resize(self, stage: str, concurrency: int) -> None:
        """Let a stage work on so many batches at a time.

        :raises RequestRefused: when it does not run, or the stage can't.
        """
        try:
            self._running().steering.resize(stage, concurrency)
        except ConfigError as error:
            raise RequestRefused("resize", str(error)) from error

    def retarget(self, seconds: float, batcher: str | None) -> None:
        """Let batchers size batches for another target latency.

        :raises RequestRefused: when it does not run, or there is no such batcher.
        """
        try:
            self._running().steering.retarget(seconds, batcher)
        except ConfigError as error:
            raise RequestRefused("retarget", str(error)) from error

    def leave(self) -> None:
        """Drain it, if it runs, and let `run` end."""
        self._leaving = True
        self._started.set()
        if self._supervisor is not None:
            self._begin_drain(None)

    def abort(self) -> None:
        """Stop it at once."""
        self._leaving = True
        self._started.set()
        if self._supervisor is not None:
            self._supervisor.abort()

    # --- watching ---

    @property
    def loaded(self) -> Loaded:
        """Its config."""
        return self._loaded

    @property
    def supervisor(self) -> Supervisor | None:
        """What runs it just now."""
        return self._supervisor

    @property
    def service(self) -> Service:
        """What takes records for it.

        :raises RequestRefused: when it has no inlet, or does not run.
        """
        if not self.accepts:
            raise RequestRefused("no_inlet", f"pipeline '{self.name}' has no source of kind inlet to submit to")
        if self._state == "starting":
            raise RequestRefused("starting", f"pipeline '{self.name}' is starting", 503, {"retry-after": "1"})
        self._running()
        assert self._service is not None
        return self._service

    @property
    def accepts(self) -> bool:
        """Whether it has an inlet."""
        sources = self._loaded.topology.sources
        return any(isinstance(each.spec, Source) and each.spec.fed for each in sources)

    @property
    def state(self) -> State:
        """What it does."""
        return self._state

    @property
    def error(self) -> str:
        """Why it failed, empty if it did not."""
        return self._error

    @property
    def exit_code(self) -> int:
        """What the command would have ended with for the last run."""
        return self._code

    @property
    def batches(self) -> BatchLog:
        """Its newest batches."""
        return self._batches

    @property
    def points(self) -> list[Point]:
        """A point for each of the last seconds."""
        return list(self._points)

    def status(self) -> Status | None:
        """Return the numbers of the run that is on, or of the last one; None before the first."""
        return self._supervisor.status() if self._supervisor is not None else self._status

    def tick(self) -> None:
        """Take note of how it goes; called once a second."""
        status = self.status()
        if status is None or self._supervisor is None:
            return
        if self._state == "starting" and status.state == "running":
            self._enter("running")
        self._meter.look(status)
        rates = self._meter.rates()
        batchers = {stage.name: stage for stage in status.stages if stage.role == "batcher"}
        self._points.append(
            Point(
                at=self._clock.wall(),
                read=rates.read,
                settled=rates.settled,
                failed=rates.failed,
                unsettled=status.account.unsettled,
                sizes={name: stage.last_batch for name, stage in batchers.items()},
                latencies={name: quantile(self._batches.latencies(name), 0.95) for name in batchers},
            )
        )

    async def keep(self) -> None:
        """Put the newest batches into their file; where that can't be done, they are in memory only."""
        new = self._batches.take_new()
        if self._kept is not None:
            try:
                await self._kept.add(new)
            except (OSError, sqlite3.Error) as error:
                self._forget_file(error)

    def view(self) -> PipelineView:
        """Return it as the API shows it."""
        status, mask = self.status(), self._loaded.secrets.mask
        view = PipelineView(
            name=self.name,
            state=self._state,
            since=self._since,
            error=self._error,
            run=self._run,
            lineage=self._lineage,
            resumed=self._resumed,
            rates=self._meter.rates(),
            stages=stage_views(self._loaded.topology, status, self._meter.stages(), self._batches, mask),
            sources=source_views(status),
            accepts=self.accepts,
            submitted=self._submitted(),
        )
        if status is not None:
            view.uptime, view.account = status.seconds, account_view(status.account)
            for name in ("dead_letters", "bytes_held", "checkpoints", "checkpoint_age", "loop_lag", "bottleneck"):
                setattr(view, name, getattr(status, name))
        view.alerts = self._all_alerts(status)
        if self._supervisor is None:
            # What has ended has no rates, and its last checkpoint grows no older.
            view.rates, view.checkpoint_age = Rates(), None
            for stage in view.stages:
                stage.rate_in = stage.rate_out = 0.0
                if self._error.startswith(f"stage '{stage.name}'"):
                    stage.state = "failed"
        return view

    def measures(self) -> list[Metric]:
        """Return the metrics of the run that is on, or of the last one."""
        return self._supervisor.measures() if self._supervisor is not None else self._measures

    def statistics(self) -> Statistics:
        """Return what its runs come to."""
        view, latencies = self.view(), self._batches.latencies()
        batchers = [stage for stage in view.stages if stage.role == "batcher"]
        batches, batched = sum(stage.batches for stage in batchers), sum(stage.records_out for stage in batchers)
        account = view.account
        ended = account.read - account.unsettled
        good = account.written + account.filtered
        return Statistics(
            pipeline=self.name,
            state=view.state,
            uptime=view.uptime,
            account=account,
            rates=view.rates,
            last_hour=self._last_hour(),
            submitted=view.submitted,
            success_rate=good / ended if ended else None,
            batches=batches,
            average_batch=batched / batches if batches else None,
            p50_seconds=quantile(latencies, 0.5),
            p95_seconds=quantile(latencies, 0.95),
            p99_seconds=quantile(latencies, 0.99),
            throughput=ended / view.uptime if view.uptime else 0.0,
            dead_letters=view.dead_letters,
            bottleneck=view.bottleneck,
        )

    # --- the runs ---

    async def _once(self) -> None:
        self._error, self._paused, self._code = "", False, 0
        self._meter.forget()
        try:
            report = await (self._serve() if self.accepts else self._run_through())
        except PipelineError as error:
            self._end("failed", str(error), int(error.exit_code))
        except Exception as error:
            # A bug in one pipeline ends that one: the others have nothing to do with it.
            self._end("failed", f"{type(error).__name__}: {error}; this is a bug", Exit.FAILED)
        else:
            self._end(_state_of(report), report.error, report.exit_code)

    async def _replay(self, asked: "_Asked") -> None:
        """Replay, answer who asked for it, and start again what was drained for it."""
        before = self._state
        wanted = Wanted(stage=asked.wanted.stage or None, error=asked.wanted.error or None, ids=asked.wanted.ids)
        try:
            if not self._leaving:
                self._enter("replaying")
                pipeline = Pipeline.from_loaded(self._loaded)
                replaying = pipeline.replaying(Replay(wanted, force=asked.wanted.force), subscribers=[self._note])
                self._service, self._supervisor = None, replaying
                asked.report = await replaying.run()
        except PipelineError as error:
            asked.error = self._loaded.secrets.mask(str(error))
        finally:
            self._supervisor = None
            asked.done.set()
        self._enter(before)
        if asked.start_again and before != "failed" and not self._leaving:
            self._enter("starting")
            self._started.set()

    async def _serve(self) -> Report:
        self._service = Pipeline.from_loaded(self._loaded).service(subscribers=[self._note])
        self._supervisor = self._service.supervisor
        async with self._service as service:
            return await service.wait()

    async def _run_through(self) -> Report:
        self._service = None
        self._supervisor = Pipeline.from_loaded(self._loaded).supervisor(subscribers=[self._note])
        return await self._supervisor.run()

    def _begin_drain(self, deadline: float | None) -> None:
        if self._service is not None:
            self._service.close(deadline)
        elif self._supervisor is not None:
            self._supervisor.drain(deadline)
        self._enter("draining")

    def _end(self, state: State, error: str, code: int) -> None:
        if self._supervisor is not None:
            self._status, self._measures = self._supervisor.status(), self._supervisor.measures()
        self._supervisor = None
        self._error, self._code = self._loaded.secrets.mask(error), code
        self._alerts.clear()
        self._enter(state)

    async def _remember(self) -> None:
        if self._kept is not None:
            try:
                self._batches.restore(await self._kept.load())
            except (OSError, sqlite3.Error) as error:
                self._forget_file(error)

    def _forget_file(self, error: Exception) -> None:
        self._kept = None
        self._tell(self.name, "warning", {"text": f"batches are not kept for the next start: {error}"})

    def _running(self) -> Supervisor:
        if self._supervisor is None:
            raise RequestRefused("not_running", f"pipeline '{self.name}' is {self._state}; start it first")
        return self._supervisor

    def _read_again(self) -> None:
        try:
            loaded = self._reload()
        except PipelineError as error:
            raise RequestRefused("config", str(error)) from error
        if loaded.config.name != self.name:
            raise RequestRefused("config", f"the config names another pipeline now: '{loaded.config.name}'")
        self._loaded = loaded
        before = reversed(self._batches.newest(1000))
        self._batches = self._log()
        self._batches.restore(before)

    def _log(self) -> BatchLog:
        stages = self._loaded.topology.stages.values()
        return BatchLog({stage.name: stage.spec for stage in stages if stage.role == "batcher"})

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since = state, self._clock.wall()
            self._tell(self.name, "state", {"state": state, **({"error": self._error} if state == "failed" else {})})

    # --- what it tells ---

    def _note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take note of a log event of the run."""
        if event == "batch":
            self._batches.batch(fields, self._clock.wall(), self._run)
        elif event == "resize":
            self._batches.resize(fields)
        elif event == "started" and self._state != "replaying":
            self._run, self._lineage, self._resumed = fields["run"], fields["lineage"], fields["resumed"]
            self._enter("running")
        elif event == "draining":
            self._enter("draining")
        if event not in _SILENT:
            shown: Mapping[str, Any] = masked(dict(fields), self._loaded.secrets.mask)
            self._tell(self.name, event, shown)

    def _all_alerts(self, status: Status | None) -> list[Alert]:
        if self._state == "failed":
            return [Alert("failed", self._error or "the pipeline failed", self._since, "error")]
        if status is None or self._supervisor is None:
            return []
        texts = dict.fromkeys(status.alerts, "alert")
        texts |= {
            f"stage '{stage}': {state}": "breaker" for stage, state in status.breakers.items() if state != "closed"
        }
        if status.postponed:
            texts[f"no checkpoint can be taken: {status.postponed}"] = "checkpoint"
        now, mask = self._clock.wall(), self._loaded.secrets.mask
        self._alerts = {text: self._alerts.get(text, now) for text in texts}
        return [Alert(name, mask(text), self._alerts[text]) for text, name in texts.items()]

    def _submitted(self) -> Submitted | None:
        return None if self._service is None else Submitted(**structs.asdict(self._service.counts()))

    def _last_hour(self) -> Rates:
        if self._supervisor is None:
            return Rates()
        lately = self._supervisor.lately(3600.0)
        span = max(lately.seconds, 1e-9)
        return Rates(
            seconds=lately.seconds,
            read=lately.read / span,
            settled=lately.rate,
            failed=lately.failed / span,
            batches=lately.batches / span,
            average_batch=lately.average_batch,
            error_rate=lately.error_rate,
        )


@dataclass(slots=True)
class _Asked:
    """A replay that somebody waits for."""

    wanted: ReplayRequest
    start_again: bool
    done: anyio.Event = field(default_factory=anyio.Event)
    report: Report | None = None
    error: str = ""


def _state_of(report: Report) -> State:
    if report.outcome == "done":
        return "finished"
    return "stopped" if report.outcome in ("drained", "interrupted") else "failed"
