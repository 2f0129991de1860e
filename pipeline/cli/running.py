"""One run under the command: watched, stopped by signals, and ended with an exit code."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
from msgspec import Struct

from pipeline.cli.config import ConfigFile, refuse_config
from pipeline.cli.ending import ending_fields, ending_lines, replay_lines
from pipeline.cli.forced import end_anyway, end_no_more
from pipeline.cli.progress import Meter
from pipeline.cli.signals import Signals, Stopped
from pipeline.cli.views import Lines, Logged, Screen, View
from pipeline.collecting import collecting_less
from pipeline.errors import ConfigError, Exit, PipelineError
from pipeline.flow.supervisor import Supervisor
from pipeline.pipeline import Pipeline
from pipeline.plan.load import Loaded
from pipeline.plan.workers import worker_problems
from pipeline.standard import printing_aside, standard_output
from pipeline.units import format_duration
from pipeline.watch.events import Events, Subscriber
from pipeline.watch.report import Report
from pipeline.workers.books import is_divided, refuse_undivided

if TYPE_CHECKING:
    from pipeline.flow.entries import Replay
    from pipeline.workers.coordinator import Coordinator
    from pipeline.workers.reserve import Reserve

__all__ = ("Request", "execute", "exit_code")

_GRACE = 5.0
"""Seconds after the drain's deadline, or after the second signal, for which a function that blocks is waited for."""
_PATIENCE = 1.0
"""Seconds after the second signal, or the drain's deadline, in which a run ends by itself, if it can."""


class Request(Struct, frozen=True):
    """What was asked for on the command line."""

    config: ConfigFile
    dry_run: bool = False
    limit: int | None = None
    fresh: bool = False
    repeat: bool = False
    accept_changes: bool = False
    log: str | None = None
    log_level: str = "info"
    fail_on_dlq: bool = False
    report: str | None = None
    replay: "Replay | None" = None
    """What is to be replayed, where this is no run of the pipeline's sources."""


def execute(request: Request, signals: Signals) -> int:
    """Load a config and run it to its end; return the exit code.

    :raises ConfigError: when the config is wrong.
    :raises Stopped: when a second signal comes before the run has begun.
    """
    loaded = request.config.load()
    _refuse_inlets(request, loaded)
    if request.report is not None:
        from pipeline.cli.reported import check_report

        check_report(request.report)
        refuse_config(request.config.path, request.report, "--report")
    with _reserve(request, loaded) as reserve:
        view = _view(request, loaded)
        try:
            with collecting_less(), printing_aside():
                return asyncio.run(_run(request, loaded, view, signals, reserve))
        except PipelineError as error:
            view.fail(error)
            return int(error.exit_code)
        finally:
            view.close()


def exit_code(report: Report, signals: Signals, *, fail_on_dlq: bool, output_closed: bool) -> int:
    """Return what the command exits with. Where several apply: 6, 7, 143 (or 130), 3."""
    code = int(report.exit_code)
    if code == Exit.TERMINATED:
        return signals.exit_code or code
    if code == Exit.FAILED and output_closed:
        return Exit.CLOSED_OUTPUT
    if code == Exit.DONE and fail_on_dlq and report.account.dead_lettered:
        return Exit.DEAD_LETTERS
    return code


async def _run(request: Request, loaded: Loaded, view: View, signals: Signals, reserve: "Reserve | None") -> int:
    topology, anew = loaded.topology, request.fresh
    shared = request.replay is None and (loaded.config.workers > 1 or (not anew and await is_divided(topology)))
    if shared:
        _check_shared(request, loaded)
    if shared and request.dry_run and not anew:
        await refuse_undivided(topology)
    return await _Running(request, loaded, view, signals, shared and not request.dry_run, reserve).run()


class _Running:
    """Ties a supervisor to its view and to the signals."""

    def __init__(
        self,
        request: Request,
        loaded: Loaded,
        view: View,
        signals: Signals,
        shared: bool,
        reserve: "Reserve | None",
    ) -> None:
        self._request = request
        self._topology = loaded.topology
        self._mask = loaded.secrets.mask
        self._view = view
        self._signals = signals
        self._meter = Meter(request.limit)
        self._scope = anyio.CancelScope()
        self._ticking: asyncio.TimerHandle | None = None
        self._supervisor: Supervisor | Coordinator = (
            _coordinator(request, loaded, self._event, reserve) if shared else _supervisor(request, loaded, self._event)
        )
        if request.log_level == "trace":
            self._supervisor.tell_records()

    async def run(self) -> int:
        """Run, say how it ended, and return the exit code."""
        loop = asyncio.get_running_loop()

        drain: Any = self._topology.config.drain

        def received(number: int, count: int) -> None:
            # The loop may hang in a function of the user's, and then nobody else would end it.
            if count > 2:
                os._exit(self._signals.exit_code)
            if count == 2:
                end_anyway(_GRACE, self._signals.exit_code)
            else:
                end_anyway(drain + _GRACE, Exit.DEADLINE)
            loop.call_soon_threadsafe(self._stop, count)

        self._signals.listen(received)
        self._ticking = loop.call_later(self._view.every, self._tick)
        try:
            with self._scope:
                code = self._finish(await self._supervisor.run())
                # What is left is to let go of threads, which one that blocks could make long.
                self._signals.listen(lambda number, count: os._exit(code))
                return code
        finally:
            self._ticking.cancel()
            end_no_more()
        raise Stopped(self._signals.exit_code)

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        self._view.event(name, fields)
        if name == "started":
            self._view.event("configured", self._configured())

    def _configured(self) -> dict[str, Any]:
        stages = self._topology.stages
        batchers = {name: stage.spec for name, stage in stages.items() if stage.role == "batcher"}
        return {
            "stages": [f"{stage.role} {stage.kind}: {stage.name}" for stage in stages.values()],
            "workers": {name: getattr(stage.spec, "concurrency", 1) for name, stage in stages.items()},
            "batch_size": {
                name: getattr(spec, "size", getattr(spec, "max_size", None)) for name, spec in batchers.items()
            },
            "total": Meter(self._request.limit).look(self._supervisor.status()).total,
            "state": self._topology.checkpoint_path,
        }

    def _tick(self) -> None:
        status = self._supervisor.status()
        self._view.progress(status, self._meter.look(status))
        self._ticking = asyncio.get_running_loop().call_later(self._view.every, self._tick)

    def _stop(self, count: int) -> None:
        name = signal.Signals(self._signals.received[0]).name
        if count == 1:
            drain: Any = self._topology.config.drain
            self._view.say(
                f"{name}: finishing what is under way, within {format_duration(drain)}; once more stops at once"
            )
            self._supervisor.drain()
            asyncio.get_running_loop().call_later(drain + _PATIENCE, self._leave)
            return
        self._view.say("stopping at once")
        self._supervisor.abort()
        # A source or a sink that hangs while it is opened hears nothing of an abort.
        asyncio.get_running_loop().call_later(_PATIENCE, self._scope.cancel)

    def _leave(self) -> None:
        """End the process where a function goes on although the deadline has passed and it was cancelled."""
        report = self._supervisor.left_behind()
        if report is not None:
            code = self._finish(report)
            self._view.close()
            os._exit(code)

    def _finish(self, report: Report) -> int:
        if self._request.dry_run:
            if report.error:
                self._view.say(f"error: {report.error}")
            count = len(self._topology.stages)
            self._view.say(f"{report.pipeline}: dry run: {count} stages opened, nothing read and nothing written")
            return int(report.exit_code)
        closed = any(sink.kind == "stdout" for sink in self._topology.sinks) and _output_closed()
        code = exit_code(report, self._signals, fail_on_dlq=self._request.fail_on_dlq, output_closed=closed)
        if code != Exit.CLOSED_OUTPUT:
            saved = report.resumed or self._supervisor.status().checkpoints > 0
            self._view.finish(list(self._lines(report, code, saved)), ending_fields(report, code))
        return self._write_report(report, code)

    def _lines(self, report: Report, code: int, saved: bool) -> Iterator[str]:
        config, limit = self._request.config, self._request.limit
        if self._request.replay is not None:
            from pipeline.flow.replaying import Replaying

            assert isinstance(self._supervisor, Replaying)
            return replay_lines(report, len(self._supervisor.entries.left), self._topology, config)
        return ending_lines(report, self._topology, config, code, saved=saved, limit=limit)

    def _write_report(self, report: Report, code: int) -> int:
        """Write the page that was asked for; return the exit code, another where only that failed."""
        path = self._request.report
        if path is None:
            return code
        from pipeline.cli.reported import write_report

        problem = write_report(path, report, self._supervisor.history(), self._mask)
        self._view.say(problem or f"report: {path}")
        return Exit.STORAGE if problem and code == Exit.DONE else code


def _refuse_inlets(request: Request, loaded: Loaded) -> None:
    """Refuse a pipeline that would wait for records that nobody can hand in."""
    for source in loaded.topology.sources:
        if getattr(source.spec, "fed", False):
            raise ConfigError(
                f"source '{source.name}' takes the records that are submitted, and a run has nobody to submit them; "
                f"{request.config.command('serve')} takes them over HTTP"
            )


def _supervisor(request: Request, loaded: Loaded, subscriber: Subscriber) -> Supervisor:
    pipeline = Pipeline.from_loaded(loaded)
    if request.replay is not None:
        return pipeline.replaying(request.replay, subscribers=[subscriber])
    return pipeline.supervisor(
        fresh=request.fresh,
        accept_changes=request.accept_changes,
        repeat=request.repeat,
        dry_run=request.dry_run,
        limit=request.limit,
        subscribers=[subscriber],
    )


@contextmanager
def _reserve(request: Request, loaded: Loaded) -> Generator["Reserve | None", None, None]:
    """Fork what is plainly going to be needed, while nothing runs that a fork could tear."""
    if loaded.config.workers == 1 or request.replay is not None or request.dry_run:
        yield None
        return
    from pipeline.workers.reserve import Reserve

    reserve = Reserve()
    try:
        if not loaded.foreign:
            reserve.fill(loaded.topology)
        yield reserve
    finally:
        reserve.close()


def _coordinator(request: Request, loaded: Loaded, subscriber: Subscriber, reserve: "Reserve | None") -> "Coordinator":
    from pipeline.workers.coordinator import Coordinator, Plan
    from pipeline.workers.reserve import Reserve

    config = request.config
    plan = Plan(
        loaded.topology, config.path, tuple(config.settings), tuple(config.allow_code), request.fresh, request.repeat
    )
    return Coordinator(plan, reserve or Reserve(), events=Events((subscriber,)))


def _check_shared(request: Request, loaded: Loaded) -> None:
    """See to it that nothing is asked of workers that only one process can do.

    :raises ConfigError: when it is.
    """
    problems = [
        "--limit: workers read many places at once, and there is no order to count in; leave it out, or the workers"
        for _ in range(request.limit is not None)
    ]
    problems += [
        "--accept-changes: partitions belong to the source that they were made of; begin anew with --fresh"
        for _ in range(request.accept_changes)
    ]
    problems += [f"stage '{name}': {text}" if name else text for name, _, text in worker_problems(loaded.topology)]
    if problems:
        raise ConfigError(*problems)


def _view(request: Request, loaded: Loaded) -> View:
    mask = loaded.secrets.mask
    if request.log is not None:
        return Logged(mask, request.log, request.log_level)
    shared = standard_output().isatty() and any(sink.kind == "stdout" for sink in loaded.topology.sinks)
    if not sys.stderr.isatty() or shared:
        return Lines(mask)
    from rich.console import Console

    console = Console(stderr=True)
    return Lines(mask) if console.is_dumb_terminal else Screen(mask, console)


def _output_closed() -> bool:
    """Tell whether whoever read our standard output, if it is a pipe, has gone."""
    try:
        poll = select.poll()
        poll.register(standard_output().fileno(), 0)
        return any(flags & select.POLLERR for _, flags in poll.poll(0))
    except (OSError, ValueError):
        return False
