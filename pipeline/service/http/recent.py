"""What happened lately in a pipeline: its batches, its rates, and points for the plots; all of it bounded."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.service.http.shapes import BatcherView, BatchView, Rates
from pipeline.watch.report import Status
from pipeline.watch.summary import settings_of

__all__ = ("BatchLog", "Meter", "StageRates", "quantile")

_KEPT = 1000
_WINDOW = 10.0
"""Seconds over which rates are taken: steady, and still quick to follow a change."""

StageRates = tuple[float, float]
"""Records a second into a stage and out of it."""


class BatchLog:
    """The newest batches of a pipeline, of this run and of those before it."""

    def __init__(self, specs: Mapping[str, object]) -> None:
        self._batches: deque[BatchView] = deque(maxlen=_KEPT)
        self._settings = {name: settings_of(spec) for name, spec in specs.items()}
        self._reasons: dict[str, str] = {}
        self._new: deque[BatchView] = deque(maxlen=_KEPT)

    def batch(self, fields: Mapping[str, Any], at: float, run: int) -> None:
        """Take note of the log event of a batch; ``at`` is in seconds since 1970."""
        view = BatchView(
            at=at,
            stage=fields["stage"],
            size=fields["size"],
            seconds=fields["seconds"],
            waited=fields["waited"],
            limit=fields["limit"],
            reason=fields.get("trigger", ""),
            smooth=fields.get("smooth", True),
            run=run,
        )
        self._batches.append(view)
        self._new.append(view)

    def restore(self, batches: Iterable[BatchView]) -> None:
        """Put batches of before in front of all others."""
        later = list(self._batches)
        self._batches.clear()
        self._batches.extend((*batches, *later))

    def take_new(self) -> list[BatchView]:
        """Return the batches since the last call, the newest thousand at most."""
        found = list(self._new)
        self._new.clear()
        return found

    def resize(self, fields: Mapping[str, Any]) -> None:
        """Take note of the log event of a batcher that changed its size."""
        self._reasons[fields["stage"]] = fields["reason"]

    def newest(self, limit: int = _KEPT, stage: str | None = None) -> list[BatchView]:
        """Return the newest batches, the newest first."""
        found = (view for view in reversed(self._batches) if stage is None or view.stage == stage)
        return [view for view, _ in zip(found, range(limit), strict=False)]

    def latencies(self, stage: str | None = None) -> list[float]:
        """Return the latencies of the newest batches in ascending order: what the target of a batcher is about."""
        return sorted(self._latency(view) for view in self._batches if stage is None or view.stage == stage)

    def batcher(self, stage: str, limit: int, last: int, triggers: Mapping[str, int]) -> BatcherView:
        """Return how a batcher sizes its batches."""
        settings, latencies = self._settings[stage], self.latencies(stage)
        target = settings.get("target_latency")
        over = sum(1 for latency in latencies if target is not None and latency > target)
        sizes = [view.size for view in self._batches if view.stage == stage]
        return BatcherView(
            limit=limit,
            last=last,
            target=target,
            p50_latency=quantile(latencies, 0.5),
            p95_latency=quantile(latencies, 0.95),
            over_target=over / len(latencies) if latencies else 0.0,
            average=sum(sizes) / len(sizes) if sizes else 0.0,
            linger=settings.get("linger"),
            reason=self._reasons.get(stage, ""),
            triggers=dict(triggers),
        )

    def _latency(self, view: BatchView) -> float:
        whole = self._settings.get(view.stage, {}).get("latency_of") != "batch"
        return view.seconds + (view.waited if whole else 0.0)


def quantile(ordered: list[float], share: float) -> float | None:
    """Return the number that this share of ordered numbers is at or below; None where there are none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


@dataclass(slots=True)
class _Look:
    seconds: float
    read: int
    settled: int
    failed: int
    batches: int
    batched: int
    stages: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


class Meter:
    """Takes rates from looks at the status of a run, of which there should be about one a second."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()

    def look(self, status: Status) -> None:
        """Take note of a run at this moment; one that began anew is told by its seconds."""
        account = status.account
        batchers = [stage for stage in status.stages if stage.role == "batcher"]
        look = _Look(
            status.seconds,
            account.read,
            account.settled,
            account.dead_lettered + account.collected + account.skipped,
            sum(stage.batches for stage in batchers),
            sum(stage.records_out for stage in batchers),
            {stage.name: (stage.records_in, stage.records_out) for stage in status.stages},
        )
        if self._looks and look.seconds < self._looks[-1].seconds:
            self._looks.clear()
        self._looks.append(look)
        while len(self._looks) > 2 and self._looks[1].seconds <= look.seconds - _WINDOW:
            self._looks.popleft()

    def forget(self) -> None:
        """Begin anew."""
        self._looks.clear()

    def rates(self) -> Rates:
        """Return what a second brought, on average over the window."""
        if len(self._looks) < 2:
            return Rates()
        first, last = self._looks[0], self._looks[-1]
        span = max(last.seconds - first.seconds, 1e-9)
        settled, failed = last.settled - first.settled, last.failed - first.failed
        batches = last.batches - first.batches
        return Rates(
            seconds=span,
            read=(last.read - first.read) / span,
            settled=settled / span,
            failed=failed / span,
            batches=batches / span,
            average_batch=(last.batched - first.batched) / batches if batches else 0.0,
            error_rate=failed / settled if settled else 0.0,
        )

    def stages(self) -> dict[str, StageRates]:
        """Return records in and out a second for each stage."""
        if len(self._looks) < 2:
            return {}
        first, last = self._looks[0], self._looks[-1]
        span = max(last.seconds - first.seconds, 1e-9)
        return {
            name: ((into - first.stages.get(name, (0, 0))[0]) / span, (out - first.stages.get(name, (0, 0))[1]) / span)
            for name, (into, out) in last.stages.items()
        }
