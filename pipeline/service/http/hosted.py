"""One pipeline of the server: started, watched and ended by itself, whatever becomes of the others."""

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
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import PipelineView, ReplayRequest, State, Statistics, Submitted
from pipeline.service.http.showing import Facts, Shown
from pipeline.service.service import Service
from pipeline.settle.letters import Wanted
from pipeline.stage import Source
from pipeline.watch.exposition import Metric
from pipeline.watch.log import masked
from pipeline.watch.report import Report, Status
from pipeline.watch.window import Lately

__all__ = ("Hosted", "Listener")

Listener = Callable[[str, str, Mapping[str, Any]], None]
"""Called with the pipeline's name, a log event and its fields, in the turn of the loop; must not wait."""

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
        self._leaving = False
        self._started = anyio.Event()
        self._asked: _Asked | None = None
        self._error = ""
        self._code = 0
        self._run = 0
        self._lineage = ""
        self._resumed = False
        self.shown = Shown(loaded, self._clock)
        self._measures: list[Metric] = []

    # --- steering ---

    async def run(self) -> None:
        """Run the pipeline whenever it is started, until `leave`."""
        await self.shown.remember(self._warn)
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
        if self._supervisor is not None or self._state in ("starting", "draining", "replaying"):
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
        self._running("running").pause()
        self._enter("paused")

    def resume(self) -> None:
        """Read on.

        :raises RequestRefused: when it does not run.
        """
        self._running("paused").resume()
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

    def tick(self) -> None:
        """Take note of how it goes; called once a second."""
        if self._supervisor is not None:
            self.shown.tick(self._supervisor.status())

    async def keep(self) -> None:
        """Put the newest batches into their file."""
        await self.shown.keep(self._warn)

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

    def status(self) -> Status | None:
        """Return the numbers of the run that is on, or of the last one; None before the first."""
        return self._supervisor.status() if self._supervisor is not None else self._status

    def measures(self) -> list[Metric]:
        """Return the metrics of the run that is on, or of the last one."""
        return self._supervisor.measures() if self._supervisor is not None else self._measures

    def view(self) -> PipelineView:
        """Return it as the API shows it."""
        service, live = self._service, self._supervisor is not None
        view = self.shown.view(self._facts(), self.status(), live=live)
        view.accepts = self.accepts
        view.submitted = Submitted(**structs.asdict(service.counts())) if service is not None else None
        return view

    def statistics(self) -> Statistics:
        """Return what its runs come to."""
        lately = self._supervisor.lately(3600.0) if self._supervisor is not None else Lately()
        return self.shown.statistics(self.view(), lately)

    # --- the runs ---

    async def _once(self) -> None:
        self._error, self._code = "", 0
        self.shown.begin()
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
        # JSON knows one sort of number: 3.0 is a letter's id too.
        ids = None if asked.wanted.ids is None else [int(each) for each in asked.wanted.ids]
        wanted = Wanted(stage=asked.wanted.stage or None, error=asked.wanted.error or None, ids=ids)
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
        self._enter(state)

    def _running(self, state: State | None = None) -> Supervisor:
        if state is not None and self._state != state:
            raise RequestRefused("state", f"pipeline '{self.name}' is {self._state}, not {state}")
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
        self.shown.renew(loaded)

    def _facts(self) -> Facts:
        return Facts(self.name, self._state, self._since, self._error, self._run, self._lineage, self._resumed)

    def _warn(self, text: str) -> None:
        self._tell(self.name, "warning", {"text": text})

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since = state, self._clock.wall()
            self._tell(self.name, "state", {"state": state, **({"error": self._error} if state == "failed" else {})})

    # --- what it tells ---

    def _note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take note of a log event of the run."""
        if event == "batch":
            self.shown.batches.batch(fields, self._clock.wall(), self._run)
        elif event == "resize":
            self.shown.batches.resize(fields)
        elif event == "started" and self._state != "replaying":
            self._run, self._lineage, self._resumed = fields["run"], fields["lineage"], fields["resumed"]
            self._enter("running")
        elif event == "draining":
            self._enter("draining")
        if event not in _SILENT:
            shown: Mapping[str, Any] = masked(dict(fields), self._loaded.secrets.mask)
            self._tell(self.name, event, shown)


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
