"""A dependency that fails in one to fifty of a hundred calls, before or after it did its work, and is away at times."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from pipeline import Pipeline, Report
from pipeline.errors import Unavailable
from pipeline.stage import CircuitBreaker, Retry
from pipeline.testing import ListSink, ListSource, ManualClock
from stages import batchers, processors

__all__ = ("flaky",)

_ATTEMPTS = 40
_RESET = 5.0
_OPENS_AFTER = 4


@dataclass(slots=True)
class _Dependency:
    """Keeps what it was given by key, as a good service does: what comes again changes nothing."""

    clock: ManualClock
    chance: Random
    rate: float
    after: bool
    away: tuple[float, float]
    kept: set[str] = field(default_factory=set[str])
    attempts: Counter[int] = field(default_factory=Counter[int])
    at_once: int = 0
    most_at_once: int = 0
    in_vain: list[float] = field(default_factory=list[float])

    async def take(self, records: list[int], *, keys: list[str]) -> list[int]:
        """Do the work of a batch, or fail."""
        now = self.clock.now()
        away = self.away[0] <= now < self.away[1]
        self.attempts[records[0]] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.clock.sleep(0.01 * self.chance.random())
        finally:
            self.at_once -= 1
        fails = away or self.chance.random() < self.rate
        if away:
            self.in_vain.append(now)
        if not fails or self.after:
            self.kept.update(keys)
        if fails:
            raise self.chance.choice([Unavailable, TimeoutError, ConnectionError])("not now")
        return records


def flaky(folder: Path, chance: Random) -> str:
    """Run records through such a dependency in virtual time: each arrives once, in order, within its attempts."""
    return asyncio.run(_flaky(chance))


async def _flaky(chance: Random) -> str:
    clock, count, size = ManualClock(), chance.randrange(50, 400), chance.randrange(5, 40)
    concurrency, ordered, broken = chance.randint(1, 4), chance.random() < 0.7, chance.random() < 0.5
    begins, away = chance.uniform(0, 1), broken and chance.random() < 0.5
    service = _Dependency(
        clock,
        chance,
        # Not both: a record whose attempts are used up by an outage right behind a chance success is to blame.
        rate=0.0 if away else chance.uniform(0.01, 0.5),
        after=chance.random() < 0.5,
        away=(begins, begins + 60.0 if away else 0.0),
    )
    sink = ListSink()
    pipeline = (
        Pipeline("flaky", checkpoint="none")
        | ListSource(records=list(range(count)), chunk=64)
        | batchers.Fixed(size=size)
        | processors.Call(
            service.take,
            batch=True,
            concurrency=concurrency,
            ordered=ordered,
            retry=Retry(attempts=_ATTEMPTS, backoff=(0.01, 0.5)),
            circuit_breaker=CircuitBreaker(failures=_OPENS_AFTER, reset=_RESET) if broken else None,
        )
        | sink
    )
    report: Report = await clock.finish(pipeline.supervisor(clock=clock).run())
    return "; ".join(_problems(report, service, _written(sink), count, ordered, concurrency))


def _problems(
    report: Report, service: _Dependency, written: list[Any], count: int, ordered: bool, concurrency: int
) -> list[str]:
    called = max(service.attempts.values(), default=0)
    later = [at for at in service.in_vain if at > service.away[0] + 2.5]
    probes = sum(1 for before, after in pairwise(later) if after - before < _RESET)
    checks = {
        f"ended {report.outcome}: {report.error}": report.outcome == "done",
        f"{len(written)} of {count} written, {len(set(written))} different": sorted(written) == list(range(count)),
        "out of order": not ordered or written == sorted(written),
        f"{len(service.kept)} keys of {count} records": len(service.kept) == count,
        f"{called} attempts at one batch": called <= _ATTEMPTS,
        f"{service.most_at_once} calls at a time": service.most_at_once <= concurrency,
        f"{probes} calls in vain while the breaker was open": probes == 0,
    }
    return [text for text, good in checks.items() if not good]


def _written(sink: ListSink) -> list[Any]:
    return list(sink.records)
