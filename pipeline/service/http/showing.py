"""A pipeline of the server as it is shown: its status with rates, points for the plots, alerts, recent batches."""

import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.clock import Clock
from pipeline.plan.load import Loaded
from pipeline.service.http.kept import KeptBatches
from pipeline.service.http.looking import account_view, source_views, stage_views
from pipeline.service.http.recent import BatchLog, Meter, quantile
from pipeline.service.http.shapes import Alert, PipelineView, Point, Rates, State, Statistics
from pipeline.watch.report import Status
from pipeline.watch.window import Lately

__all__ = ("Facts", "Shown")

_POINTS = 300
_OF_STATUS = ("dead_letters", "bytes_held", "checkpoints", "checkpoint_age", "loop_lag", "bottleneck")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status of a run does not say of its pipeline."""

    name: str
    state: State
    since: float
    error: str
    run: int
    lineage: str
    resumed: bool


class Shown:
    """Gathers what is shown, from one run to the next. ``batches`` are the newest ones."""

    def __init__(self, loaded: Loaded, clock: Clock) -> None:
        self._loaded = loaded
        self._clock = clock
        self.batches = _log(loaded)
        self._kept: KeptBatches | None = KeptBatches(loaded.topology.checkpoint_path)
        self._meter = Meter()
        self._points: deque[Point] = deque(maxlen=_POINTS)
        self._alerts: dict[str, float] = {}

    def renew(self, loaded: Loaded) -> None:
        """Go on with another config."""
        before = reversed(self.batches.newest())
        self._loaded, self.batches = loaded, _log(loaded)
        self.batches.restore(before)

    def begin(self) -> None:
        """Take note that a run begins."""
        self._meter.forget()

    @property
    def points(self) -> list[Point]:
        """A point for each of the last seconds."""
        return list(self._points)

    def tick(self, status: Status) -> None:
        """Take note of how a run goes; called once a second."""
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
                latencies={name: quantile(self.batches.latencies(name), 0.95) for name in batchers},
            )
        )

    def view(self, facts: Facts, status: Status | None, *, live: bool) -> PipelineView:
        """Return the pipeline; ``live`` while it runs."""
        # What has ended has no rates, and its last checkpoint grows no older.
        rates = self._meter.stages() if live else {}
        topology, mask = self._loaded.topology, self._loaded.secrets.mask
        view = PipelineView(
            name=facts.name,
            state=facts.state,
            since=facts.since,
            error=facts.error,
            run=facts.run,
            lineage=facts.lineage,
            resumed=facts.resumed,
            rates=self._meter.rates() if live else Rates(),
            stages=stage_views(topology, status, rates, self.batches, mask),
            sources=source_views(status),
            alerts=self._alerts_of(facts, status if live else None),
        )
        if status is not None:
            view.uptime, view.account = status.seconds, account_view(status.account)
            for name in _OF_STATUS:
                setattr(view, name, getattr(status, name))
        if not live:
            view.checkpoint_age = None
            for stage in view.stages:
                if facts.error.startswith(f"stage '{stage.name}'"):
                    stage.state = "failed"
        return view

    def statistics(self, view: PipelineView, lately: Lately) -> Statistics:
        """Return what the run comes to; ``lately`` is its last hour."""
        latencies = self.batches.latencies()
        batchers = [stage for stage in view.stages if stage.role == "batcher"]
        batches, batched = sum(stage.batches for stage in batchers), sum(stage.records_out for stage in batchers)
        account = view.account
        ended = account.read - account.unsettled
        return Statistics(
            pipeline=view.name,
            state=view.state,
            uptime=view.uptime,
            account=account,
            rates=view.rates,
            last_hour=_rates(lately),
            submitted=view.submitted,
            success_rate=(account.written + account.filtered) / ended if ended else None,
            batches=batches,
            average_batch=batched / batches if batches else None,
            p50_seconds=quantile(latencies, 0.5),
            p95_seconds=quantile(latencies, 0.95),
            p99_seconds=quantile(latencies, 0.99),
            throughput=ended / view.uptime if view.uptime else 0.0,
            dead_letters=view.dead_letters,
            bottleneck=view.bottleneck,
        )

    async def remember(self, warn: Callable[[str], None]) -> None:
        """Take up the batches of before the start of this process."""
        if self._kept is not None:
            try:
                self.batches.restore(await self._kept.load())
            except (OSError, sqlite3.Error) as error:
                self._forget_file(error, warn)

    async def keep(self, warn: Callable[[str], None]) -> None:
        """Put the newest batches into their file; where that can't be done, they are in memory only."""
        new = self.batches.take_new()
        if self._kept is not None:
            try:
                await self._kept.add(new)
            except (OSError, sqlite3.Error) as error:
                self._forget_file(error, warn)

    def _forget_file(self, error: Exception, warn: Callable[[str], None]) -> None:
        self._kept = None
        warn(f"batches are not kept for the next start: {error}")

    def _alerts_of(self, facts: Facts, status: Status | None) -> list[Alert]:
        if facts.state == "failed":
            return [Alert("failed", facts.error or "the pipeline failed", facts.since, "error")]
        if status is None:
            return []
        texts = dict.fromkeys(status.alerts, "alert")
        for stage, state in status.breakers.items():
            if state != "closed":
                texts[f"stage '{stage}': {state.replace('_', ' ')}"] = "breaker"
        if status.postponed:
            texts[f"no checkpoint can be taken: {status.postponed}"] = "checkpoint"
        now, mask = self._clock.wall(), self._loaded.secrets.mask
        self._alerts = {text: self._alerts.get(text, now) for text in texts}
        return [Alert(name, mask(text), self._alerts[text]) for text, name in texts.items()]


def _log(loaded: Loaded) -> BatchLog:
    stages = loaded.topology.stages.values()
    return BatchLog({stage.name: stage.spec for stage in stages if stage.role == "batcher"})


def _rates(lately: Lately) -> Rates:
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
