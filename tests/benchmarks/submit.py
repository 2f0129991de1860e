"""Callers that each submit one record after the other, against fixed sizes: `python -m tests.benchmarks.submit`.

The function takes 20 ms and 0.1 ms a record, two batches at a time; the target is 150 ms. A figure that depends on the
machine: the engine shares its processor with the callers.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import Pipeline, RecordFailed
from pipeline.clock import Clock, SystemClock
from pipeline.service import Service
from pipeline.stage import Batcher
from stages import batchers, processors, sinks, sources

__all__ = ("Load", "POISON", "TARGET", "alone", "load", "pipeline_with")

TARGET = 0.15
POISON = 7919
_FIXED, _EACH, _CONCURRENCY = 0.02, 0.0001, 2
_REAL: Clock = SystemClock()
SIZES = (50, 100, 200, 300, 400, 500, 700, 1000)


@dataclass(slots=True)
class Load:
    """What callers saw: seconds of each call, how many answers were somebody else's, who was told of an error."""

    seconds: float = 0.0
    calls: list[float] = field(default_factory=list[float])
    mixed_up: int = 0
    failed: list[int] = field(default_factory=list[int])
    processor: float = 0.0
    """Seconds of processor time, callers included."""

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.calls) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the calls was answered."""
        return sorted(self.calls)[min(len(self.calls) - 1, int(share * len(self.calls)))]


def pipeline_with(batcher: Batcher, clock: Clock = _REAL) -> Pipeline:
    """Return the pipeline under load: its function takes the time of a batch, and a poisoned record fails all of it."""

    async def work(records: list[dict[str, int]]) -> list[dict[str, int]]:
        await clock.sleep(_FIXED + _EACH * len(records))
        if any(record["poison"] for record in records):
            raise ValueError("poison")
        return [{"n": record["n"], "square": record["n"] ** 2} for record in records]

    return (
        Pipeline("load")
        | sources.Inlet()
        | batcher
        | processors.Call(work, batch=True, concurrency=_CONCURRENCY)
        | sinks.Discard()
    )


async def load(
    service: Service, callers: int, warming: float, seconds: float, clock: Clock = _REAL, poison: bool = False
) -> Load:
    """Let callers submit in a closed loop, and count those calls that began after the warming."""
    seen = Load()
    begin = clock.now() + warming
    end = begin + seconds
    processor = 0.0

    async def call(caller: int) -> None:
        n = caller
        while (began := clock.now()) < end:
            n += callers
            bad = poison and n % POISON == 0
            try:
                answer = await service.submit({"n": n, "poison": bad})
            except RecordFailed:
                seen.failed.append(n)
                continue
            if began >= begin:
                seen.calls.append(clock.now() - began)
                seen.mixed_up += answer.record["square"] != n * n or bad

    async def measure() -> None:
        nonlocal processor
        await clock.sleep(warming)
        processor = time.process_time()

    await asyncio.gather(measure(), *(call(caller) for caller in range(callers)))
    seen.seconds = clock.now() - begin
    seen.processor = time.process_time() - processor
    return seen


async def alone(service: Service, clock: Clock = _REAL, calls: int = 20) -> list[float]:
    """Return the seconds that one caller waits for each of some answers, one after the other."""
    seen: list[float] = []
    for n in range(calls):
        began = clock.now()
        await service.submit({"n": n, "poison": False})
        seen.append(clock.now() - began)
    return seen


def _line(name: str, seen: Load) -> str:
    return (
        f"{name:>12}: {seen.throughput:7,.0f} a second, median {seen.quantile(0.5) * 1000:4.0f} ms, "
        f"p95 {seen.quantile(0.95) * 1000:4.0f} ms, p99 {seen.quantile(0.99) * 1000:4.0f} ms, "
        f"{seen.processor / len(seen.calls) * 1e6:3.0f} µs of processor a call, mixed up {seen.mixed_up}"
    )


async def _measure(batcher: Any, callers: int, warming: float, seconds: float) -> Load:
    async with pipeline_with(batcher).service() as service:
        return await load(service, callers, warming, seconds)


async def _compare(callers: int, seconds: float, sizes: Sequence[int]) -> None:
    best = 0.0
    for size in sizes:
        seen = await _measure(batchers.Fixed(size=size, linger=0.02), callers, 1.0, seconds / 4)
        print(_line(f"fixed {size}", seen), flush=True)
        best = max(best, seen.throughput)
    async with pipeline_with(batchers.Adaptive(target_latency=TARGET)).service() as service:
        seen = await load(service, callers, 2.0, seconds)
        print(_line("adaptive", seen))
        waits = await alone(service)
    waits = sorted(1000 * wait for wait in waits)
    print(f"{seen.throughput / best:.0%} of the best fixed size")
    print(f"one caller alone: median {waits[len(waits) // 2]:.1f} ms, at most {waits[-1]:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    asked = parser.parse_args()
    asyncio.run(_compare(asked.callers, asked.seconds, asked.sizes))
