"""A run that never was, told to a recorder batch by batch."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.watch.history import Look, Recorder
from pipeline.watch.report import Account, Report, StageStatus

__all__ = ("Batching", "Calling", "Reading", "Told", "report_of", "stage_status_of")


@dataclass
class Reading:
    """A source."""

    role: str = "source"


@dataclass
class Batching:
    """A batcher with a target."""

    role: str = "batcher"
    target_latency: float | str | None = 0.1
    latency_of: str = "record"
    percentile: float = 95.0
    margin: float = 0.05
    min_size: int = 1
    max_size: int = 5000
    linger: float | None = None


@dataclass
class Calling:
    """A processor."""

    role: str = "processor"
    concurrency: int = 1
    executor: str = "inline"
    function: Any = None


@dataclass
class Told:
    """Time, counters and the recorder that looks at them."""

    batcher: Batching = field(default_factory=Batching)
    now: float = 0.0
    settled: int = 0
    limit: int = 1
    fixed: float = 0.0
    per_record: float = 0.0
    looks: int = 0
    busy: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "call": 0.0, "check": 0.0})
    triggers: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        specs = {"read": Reading(), "batch": self.batcher, "call": Calling(), "check": Calling()}
        self.recorder = Recorder(lambda: self.now, self._look, specs)

    def begin(self) -> None:
        self.recorder.begin(1_700_000_000.0)

    def batch(self, size: int, seconds: float, waited: float = 0.0, *, stage: str = "call") -> None:
        """Let a batch go through, most of whose time is a stage's."""
        self.now += seconds
        self.settled += size
        self.busy[stage] += seconds
        self.triggers["size"] = self.triggers.get("size", 0) + 1
        self.recorder.event(
            "batch", {"stage": "batch", "size": size, "seconds": seconds, "waited": waited, "limit": self.limit}
        )

    def resize(self, limit: int, reason: str) -> None:
        """Change the limit."""
        before, self.limit = self.limit, limit
        self.recorder.event("resize", {"stage": "batch", "before": before, "limit": limit, "reason": reason})

    def climb(self) -> None:
        """Take the way from 1 to 256 and stay there for 50 batches of 10 ms and 0.1 ms a record."""
        self.begin()
        self.fixed, self.per_record = 0.010, 0.0001
        self.batch(1, 0.0101)
        self.resize(2, "first")
        while self.limit < 256:
            self.batch(self.limit, 0.010 + 0.0001 * self.limit)
            self.resize(self.limit * 2, "growth")
        for _ in range(50):
            self.batch(256, 0.0356, 0.03)

    def slow_down(self) -> None:
        """After the climb: three late batches, the alarm, and batches of 100 that take three times as long a record.

        The model follows the late batches half-heartedly before the alarm, as a real one does.
        """
        self.per_record = 0.00015
        for _ in range(3):
            self.batch(256, 0.0868, 0.08)
        self.per_record = 0.0003
        self.resize(80, "slower")
        self.batch(256, 0.0868, 0.08)
        for _ in range(50):
            self.batch(100, 0.040, 0.035)

    def _look(self) -> Look:
        self.looks += 1
        law = {
            "limit": self.limit,
            "linger_seconds": 0.05,
            "model_fixed_seconds": self.fixed,
            "model_per_record_seconds": self.per_record,
            "record_headroom": 2.0,
        }
        return Look(
            self.now,
            self.settled,
            unsettled=10,
            fills={"call": 0.5},
            busy=dict(self.busy),
            laws={"batch": law},
            triggers={"batch": dict(self.triggers)},
        )


def stage_status_of(name: str, role: str, busy: float, waiting_out: float = 0.0, **more: Any) -> StageStatus:
    """Return a stage with these shares of time."""
    given: dict[str, Any] = {
        **{"name": name, "role": role, "kind": "call" if role == "processor" else role, "state": "stopped"},
        **{"records_in": 1000, "records_out": 1000, "filtered": 0, "batches": 10, "retries": 0, "failed": {}},
        **{"last_batch": 0, "in_flight": 0, "limit": 0, "mean_seconds": 0.01, "p95_seconds": 0.02},
        **{"busy": busy, "waiting_in": 0.0, "waiting_out": waiting_out, **more},
    }
    return StageStatus(**given)


def report_of(told: Told, **more: Any) -> Report:
    """Return the report of a run in which ``call`` was the slowest."""
    stages = [
        stage_status_of("read", "source", 0.2, 0.8),
        stage_status_of("batch", "batcher", 0.0),
        stage_status_of("call", "processor", 0.95),
    ]
    account = Account(read=told.settled, written=told.settled)
    given: dict[str, Any] = {"outcome": "done", "exit_code": 0, "seconds": told.now, "stages": stages, **more}
    given = {"pipeline": "delays", "account": account, "total": account, **given}
    return Report(**given)
