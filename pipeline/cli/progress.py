"""How far a run has come and how fast it goes: counted from its status, told in a line or in fields."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from pipeline.cli.say import number, span
from pipeline.watch.report import Account, SourceStatus, StageStatus, Status

__all__ = ("Meter", "Progress", "batch_text", "progress_line")

_WINDOW = 10.0
"""Seconds over which a rate is taken: long enough to be steady, short enough to follow a change."""


class Progress(Struct, frozen=True):
    """What is known of a run at one moment. Records of this run; None where nobody can know.

    ``failed`` are dead letters, collected and skipped ones; ``processed`` the others that ended. ``share`` is between
    0 and 1, ``rate`` in records a second, ``eta`` in seconds.
    """

    read: int
    processed: int
    failed: int
    total: int | None
    share: float | None
    rate: float
    eta: float | None

    def fields(self) -> dict[str, Any]:
        """Return the fields of the log event."""
        done = self.processed + self.failed
        return {
            "total": self.total,
            "read": self.read,
            "processed": self.processed,
            "failed": self.failed,
            "remaining": None if self.total is None else self.total - done,
            "progress_pct": None if self.share is None else round(self.share * 100, 2),
            "rate": round(self.rate, 1),
            "eta": None if self.eta is None else round(self.eta, 1),
        }


class Meter:
    """Looks at a run now and then and takes rates from the last seconds. ``limit`` is the run's, if it has one."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._seen: deque[tuple[float, int, float]] = deque()

    def look(self, status: Status) -> Progress:
        """Return how far the run has come."""
        account = status.account
        failed = account.dead_lettered + account.collected + account.skipped
        total = _total(account, status.sources)
        share = self._share(account, status.sources, total)
        rate, pace = self._rates(status.seconds, account.settled, share or 0.0, total is not None)
        eta = (1 - share) / pace if share is not None and pace > 0 and status.state == "running" else None
        return Progress(account.read, account.settled - failed, failed, total, share, rate, eta)

    def _share(self, account: Account, sources: list[SourceStatus], total: int | None) -> float | None:
        shares = [source.done / source.total for source in sources if source.done is not None and source.total]
        share = None
        if total:
            share = account.settled / total
        elif sources and len(shares) == len(sources):
            share = sum(shares) / len(shares)
        if self._limit is not None and sources:
            # The end is wherever the limit or the source is reached first.
            share = max(share or 0.0, account.read / (self._limit * len(sources)))
        return None if share is None else min(1.0, share)

    def _rates(self, seconds: float, settled: int, share: float, counted: bool) -> tuple[float, float]:
        if not self._seen:
            # At its start nothing was settled; how far its sources had come by then is known where records are counted.
            self._seen.append((0.0, 0, 0.0 if counted else share))
        self._seen.append((seconds, settled, share))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - _WINDOW:
            self._seen.popleft()
        first, passed = self._seen[0], seconds - self._seen[0][0]
        if passed <= 0:
            return 0.0, 0.0
        return (settled - first[1]) / passed, (share - first[2]) / passed


def progress_line(status: Status, progress: Progress) -> str:
    """Return a run's progress in one line."""
    return " · ".join(_parts(status, progress))


def batch_text(stage: StageStatus) -> str:
    """Return the last batch of a batcher and what it may hold at most, where that is known yet."""
    return f"batch {number(stage.last_batch)}" + (f" of {number(stage.limit)}" if stage.limit else "")


def _total(account: Account, sources: list[SourceStatus]) -> int | None:
    left = [
        source.total - source.done
        for source in sources
        if source.unit == "records" and source.total is not None and source.done is not None
    ]
    return account.read + sum(left) if sources and len(left) == len(sources) else None


def _parts(status: Status, progress: Progress) -> Iterator[str]:
    yield f"read {number(progress.read)}"
    if progress.share is not None:
        yield f"{progress.share:.0%}"
    yield f"{number(progress.rate)}/s"
    if progress.eta is not None:
        yield f"ETA {span(progress.eta)}"
    for stage in status.stages:
        if stage.role == "batcher" and stage.last_batch:
            yield batch_text(stage)
    fullest = max(status.channels, key=lambda channel: channel.fill, default=None)
    if fullest is not None and fullest.fill >= 0.5:
        yield f"channel into {fullest.stage} {fullest.fill:.0%} full"
    if progress.failed:
        yield f"failed {number(progress.failed)}"
    if status.dead_letters:
        yield f"dead letters {number(status.dead_letters)}"
