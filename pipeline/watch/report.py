"""What a run amounts to: the status while it runs, the report when it has ended, and the verdict on what was slow."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, field, structs, to_builtins

from pipeline.watch.metrics import BatcherMetrics, StageMetrics
from pipeline.watch.summary import Summary
from pipeline.watch.window import Lately

__all__ = (
    "Account",
    "ChannelStatus",
    "Report",
    "SourceStatus",
    "StageStatus",
    "Status",
    "find_bottleneck",
    "run_entry",
    "stage_status",
)


class Account(Struct):
    """How the records of all sources ended, each once, a record with several ends by its worst.

    ``read = written + filtered + skipped + collected + dead_lettered + unsettled``.
    """

    read: int = 0
    filtered: int = 0
    written: int = 0
    skipped: int = 0
    collected: int = 0
    dead_lettered: int = 0

    @property
    def settled(self) -> int:
        """Records that ended."""
        return self.filtered + self.written + self.skipped + self.collected + self.dead_lettered

    @property
    def unsettled(self) -> int:
        """Records that were read and have not ended; read again after a restart, if the source replays."""
        return self.read - self.settled

    def copy(self) -> "Account":
        """Return a copy that stands still."""
        return Account(self.read, self.filtered, self.written, self.skipped, self.collected, self.dead_lettered)

    def as_dict(self) -> dict[str, int]:
        """Return all seven numbers by name."""
        return {name: int(getattr(self, name)) for name in self.__struct_fields__} | {"unsettled": self.unsettled}

    def __str__(self) -> str:
        return (
            f"read {self.read:,} = written {self.written:,} + filtered {self.filtered:,} + skipped {self.skipped:,} + "
            f"collected {self.collected:,} + dead-lettered {self.dead_lettered:,} + unsettled {self.unsettled:,}"
        )


class StageStatus(Struct):
    """One stage: what it did, and how its time was shared between waiting for input, work, and waiting for output."""

    name: str
    role: str
    kind: str
    state: str
    records_in: int
    records_out: int
    filtered: int
    batches: int
    retries: int
    failed: dict[str, int]
    last_batch: int
    in_flight: int
    limit: int
    mean_seconds: float
    p95_seconds: float
    busy: float
    waiting_in: float
    waiting_out: float
    triggers: dict[str, int] = field(default_factory=dict[str, int])
    success_rate: float = 1.0
    """The share of the records that it took which did not fail in it."""
    p50_latency: float = 0.0
    """For a batcher, in seconds: from the admission of a batch's oldest record until it was through the sinks."""
    p95_latency: float = 0.0
    p99_latency: float = 0.0
    slot_wait: float = 0.0
    """For a batcher: seconds that a batch waited for a permit when it was ready, on average."""
    over_target: float = 0.0
    """For a batcher with a target: the share of its batches that took longer."""
    target: float | None = None
    resizes: dict[str, int] = field(default_factory=dict[str, int])
    """For a batcher: how often its limit changed, by reason."""
    breaker: str = ""
    """State of its circuit breaker: closed, open, half_open; empty when it has none."""
    held: float = 0.0
    """Seconds that batches were held by the open breaker, added up."""
    throttled: float = 0.0
    """Seconds that calls waited for the rate limit, added up."""


class ChannelStatus(Struct):
    """The inbox of a stage."""

    stage: str
    batches: int
    records: int
    bytes: int
    fill: float
    peak_records: int
    blocked_seconds: float


class SourceStatus(Struct):
    """How far a source has come."""

    name: str
    number: int
    unsettled: int
    done: int | None = None
    total: int | None = None
    unit: str = "records"


class Status(Struct):
    """A pipeline at one moment; what the terminal, the HTTP service and the dashboard all show."""

    pipeline: str
    state: str
    seconds: float
    account: Account
    stages: list[StageStatus]
    channels: list[ChannelStatus]
    sources: list[SourceStatus]
    dead_letters: int
    bytes_held: int
    checkpoints: int
    checkpoint_age: float | None
    loop_lag: float
    bottleneck: str
    lately: Lately = field(default_factory=Lately)
    """The last minute."""
    postponed: str = ""
    """Why the last checkpoint could not be taken, if it could not; it is tried again."""
    alerts: list[str] = field(default_factory=list[str])
    """What is wrong now, in words."""
    breakers: dict[str, str] = field(default_factory=dict[str, str])
    """Stages with a circuit breaker, and how it is: closed, open, half_open."""


class Report(Struct, kw_only=True):
    """How a run ended.

    ``account`` is of this run; ``total`` of all runs of the state file's lineage together. ``records`` is what a
    ``collect`` sink gathered, ``errors`` what failed under ``on_failure: collect`` (the first 1,000).
    """

    pipeline: str
    outcome: str
    exit_code: int
    account: Account
    total: Account
    seconds: float
    lineage: str = ""
    run: int = 1
    resumed: bool = False
    error: str = ""
    stages: list[StageStatus] = field(default_factory=list[StageStatus])
    channels: list[ChannelStatus] = field(default_factory=list[ChannelStatus])
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    dead_letters: int = 0
    """Dead letters in the state file, those of earlier runs included."""
    records: list[Any] = field(default_factory=list[Any])
    notes: list[str] = field(default_factory=list[str])
    bottleneck: str = ""

    @property
    def throughput(self) -> float:
        """Records settled a second."""
        return self.account.settled / self.seconds if self.seconds > 0 else 0.0


def run_entry(report: Report, summary: Summary) -> dict[str, Any]:
    """Return what the state's history keeps of a run, JSON-able; `pipeline explain` reads it."""
    return {
        "account": report.account.as_dict(),
        "seconds": report.seconds,
        "error": report.error,
        "bottleneck": report.bottleneck,
        "stages": [structs.asdict(stage) for stage in report.stages],
        "history": to_builtins(summary),
    }


def find_bottleneck(stages: Sequence[StageStatus], seconds: float) -> str:
    """Return in words which stage holds up the others: the one that works while those before it wait to send."""
    if seconds < 0.05 or not stages:
        return ""
    busiest = max(stages, key=lambda stage: stage.busy)
    if busiest.busy < 0.5:
        return "nothing: the stages mostly wait for records"
    waits = [stage.name for stage in stages if stage.waiting_out > 0.5]
    behind = f"; {', '.join(waits)} waited to send" if waits else ""
    return f"{busiest.role} '{busiest.name}' worked {busiest.busy:.0%} of the time{behind}"


def stage_status(metrics: StageMetrics, seconds: float) -> StageStatus:
    """Return what a stage's counters say after so many seconds of running."""
    span = max(seconds, 1e-9)
    failed = sum(metrics.failed.values())
    status = StageStatus(
        name=metrics.name,
        role=metrics.role,
        kind=metrics.kind,
        state=metrics.state,
        records_in=metrics.records_in,
        records_out=metrics.records_out,
        filtered=metrics.filtered,
        batches=metrics.batches,
        retries=metrics.retries,
        failed=dict(metrics.failed),
        last_batch=metrics.last_batch,
        in_flight=metrics.in_flight,
        limit=metrics.limit,
        mean_seconds=metrics.batch_seconds.mean,
        p95_seconds=metrics.batch_seconds.quantile(0.95),
        busy=min(1.0, metrics.busy_seconds / span / metrics.concurrency),
        waiting_in=min(1.0, metrics.waiting_in_seconds / span),
        waiting_out=min(1.0, metrics.waiting_out_seconds / span),
        triggers=dict(metrics.triggers),
        success_rate=1 - failed / metrics.records_in if metrics.records_in else 1.0,
        breaker=metrics.breaker,
        held=metrics.held_seconds,
        throttled=metrics.throttled_seconds,
    )
    if metrics.batcher is not None:
        _add_latencies(status, metrics.batcher)
    return status


def _add_latencies(status: StageStatus, batcher: BatcherMetrics) -> None:
    status.p50_latency, status.p95_latency, status.p99_latency = map(batcher.latencies.quantile, (0.5, 0.95, 0.99))
    status.slot_wait = batcher.slot_wait.mean
    status.target = batcher.target[0]
    status.over_target = batcher.over / batcher.through if batcher.through else 0.0
    status.resizes = dict(batcher.resizes)
