"""Adaptive batches on the real event loop, against the best fixed size found by search in the same run.

`python -m tests.benchmarks.real_loop` prints, for each load of `real_stages` and the median of several runs: the share
of records over the target, the throughput over that of the best fixed size, sizes and the batches until back within
the target when everything gets 3 times slower in the middle; and what five records a second wait.

A record's latency is taken for that of its batch's oldest record. The best fixed size is the largest of which at most
5 % of records are over the target; the source always has more.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from pipeline import Pipeline
from pipeline.stage import Batcher
from stages import batchers, sources
from tests.benchmarks.real_stages import LOADS, Load

__all__ = ("Figures", "Idle", "idle", "measure")

_ALLOWED = 0.05  # of records over the target, for a fixed size to count
_LARGEST = 10_000
_PROBES = 8
_TURNS = 2
_SEARCHES = 2
_WARM = 0.2  # share of a run before its throughput is taken: there sizes are found
_IDLE_TARGET = 0.2
_SLACK = 8  # as long a row of batches must be for it to show that the target is met again
_MET = 7


@dataclass(frozen=True)
class Done:
    """A batch that ended: when, how many records, and the latency of the oldest, in seconds."""

    at: float
    size: int
    latency: float
    limit: int


@dataclass(frozen=True)
class _Turns:
    size: int
    over: float
    fixed_over: float
    ratio: float
    throughput: float


@dataclass(frozen=True)
class Figures:
    """What one load gave: shares, records a second, records, and batches."""

    load: str
    target: float
    over: float
    ratio: float
    throughput: float
    best_fixed: int
    fixed_over: float
    before: int
    after: int
    back_in: int


@dataclass(frozen=True)
class Idle:
    """How long five records a second took, in seconds."""

    p95: float
    worst: float
    records: int


async def measure(load: Load, seconds: float) -> Figures:
    """Search the best fixed size, let it and adaptive batches take turns, and then everything get slower."""
    size = await _search(load, seconds / 10)
    turns = await _take_turns(load, size, seconds)
    for _ in range(_SEARCHES):
        if turns.fixed_over <= _ALLOWED:
            break
        # What a short probe let pass does not hold for longer.
        size = round(size * 0.9)
        turns = await _take_turns(load, size, seconds)
    stepped = await _run(load, batchers.Adaptive(target_latency=load.target, max_size=_LARGEST), seconds, step=True)
    before = [batch.limit for batch in stepped if seconds * 0.3 < batch.at < seconds / 2]
    after = [batch.limit for batch in stepped if batch.at > seconds * 0.8]
    return Figures(
        load.name,
        load.target,
        turns.over,
        turns.ratio,
        turns.throughput,
        turns.size,
        turns.fixed_over,
        round(median(before)),
        round(median(after)),
        _back_in([batch.latency for batch in stepped if batch.at >= seconds / 2], load.target),
    )


async def _take_turns(load: Load, size: int, seconds: float) -> "_Turns":
    """Run a fixed size and adaptive batches several times each; so both meet the same other work on this machine."""
    fixed: list[Done] = []
    adaptive: list[Done] = []
    rates: list[tuple[float, float]] = []
    for _ in range(_TURNS):
        some = await _run(load, batchers.Fixed(size=size), seconds)
        more = await _run(load, batchers.Adaptive(target_latency=load.target, max_size=_LARGEST), seconds)
        fixed += some
        adaptive += more
        rates.append((_rate(some, seconds), _rate(more, seconds)))
    return _Turns(
        size,
        _over(adaptive, load.target),
        _over(fixed, load.target),
        median(mine / other for other, mine in rates),
        median(mine for _, mine in rates),
    )


async def idle(seconds: float) -> Idle:
    """Let five records a second come, with a target of 200 ms."""
    load = next(load for load in LOADS if load.name == "sleep")
    source = sources.Generate(rate=5.0)
    done = await _run(load, batchers.Adaptive(target_latency=_IDLE_TARGET), seconds, source=source)
    latencies = sorted(batch.latency for batch in done for _ in range(batch.size))
    return Idle(latencies[int(0.95 * (len(latencies) - 1))], latencies[-1], len(latencies))


async def _search(load: Load, seconds: float) -> int:
    """Halve the range of sizes, in ratios, until the largest is found that meets the target."""
    low, high = 1.0, float(_LARGEST)
    for _ in range(_PROBES):
        size = round((low * high) ** 0.5)
        done = await _run(load, batchers.Fixed(size=size), seconds)
        if done and _over(done, load.target) <= _ALLOWED:
            low = size
        else:
            high = size
    return round(low)


async def _run(
    load: Load, batcher: Batcher, seconds: float, source: sources.Generate | None = None, step: bool = False
) -> list[Done]:
    """Run for so many seconds, 3 times slower from their middle on if ``step``, and return the batches that ended."""
    loop = asyncio.get_running_loop()
    done: list[Done] = []
    async with load.place() as place:
        pipeline = Pipeline("real", checkpoint="none", on_failure="skip")
        pipeline = pipeline | (source or sources.Generate(record={"n": "n", "text": "'record number ' + str(n)"}))
        for stage in (batcher, *place.stages):
            pipeline = pipeline | stage
        started = loop.time()

        def hear(event: str, fields: Mapping[str, Any]) -> None:
            if event == "batch" and loop.time() - started < seconds:
                latency = fields["waited"] + fields["seconds"]
                done.append(Done(loop.time() - started, fields["size"], latency, fields["limit"]))

        supervisor = pipeline.supervisor(subscribers=[hear])
        timers = [loop.call_later(seconds, supervisor.abort)]
        if step:
            timers.append(loop.call_later(seconds / 2, place.slow_down))
        report = await supervisor.run()
        for timer in timers:
            timer.cancel()
        if report.error:
            raise SystemExit(f"{load.name}: {report.outcome}: {report.error}")
    return done


def _over(done: Sequence[Done], target: float) -> float:
    return sum(batch.size for batch in done if batch.latency > target) / max(1, sum(batch.size for batch in done))


def _rate(done: Sequence[Done], seconds: float) -> float:
    return sum(batch.size for batch in done if batch.at >= _WARM * seconds) / (seconds * (1 - _WARM))


def _back_in(latencies: Sequence[float], target: float) -> int:
    """Return how many batches ended before a row of which nearly all are within the target, as noise allows."""
    for index in range(len(latencies)):
        row = latencies[index : index + _SLACK]
        if row[0] <= target and sum(latency <= target for latency in row) >= min(_MET, len(row)):
            return index
    return len(latencies)


# --- the table --------------------------------------------------------------------------------------------------------


def _medians(runs: Sequence[Figures]) -> dict[str, Any]:
    rows = [asdict(run) for run in runs]
    return {key: rows[0][key] if isinstance(rows[0][key], str) else median(row[key] for row in rows) for key in rows[0]}


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "load    target   over  throughput  of best fixed (size, over)    size before -> after x3   back in"
    for row in rows:
        good = row["over"] <= 0.08 and row["ratio"] >= 0.92 and row["back_in"] <= 10
        yield (
            f"{row['load']:<7} {row['target'] * 1000:4.0f} ms  {row['over']:5.1%}  {row['throughput']:8,.0f}/s  "
            f"{row['ratio']:6.1%} ({row['best_fixed']:.0f}, {row['fixed_over']:.1%})   "
            f"{row['before']:8.0f} -> {row['after']:<8.0f} {row['back_in']:6.0f} batches  {'' if good else 'missed'}"
        )


def _main() -> None:
    parser = argparse.ArgumentParser(description="Adaptive batches on the real event loop.")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (default 20)")
    parser.add_argument("--runs", type=int, default=3, help="of which medians are printed (default 3)")
    parser.add_argument("--only", choices=[*(load.name for load in LOADS), "idle"], help="one load, or idle")
    parser.add_argument("--json", action="store_true", help="print every run as JSON")
    chosen = parser.parse_args()
    loads = [load for load in LOADS if chosen.only in (None, load.name)]
    runs = {load.name: [asyncio.run(measure(load, chosen.seconds)) for _ in range(chosen.runs)] for load in loads}
    waits = [asyncio.run(idle(chosen.seconds)) for _ in range(chosen.runs)] if chosen.only in (None, "idle") else []
    if chosen.json:
        found = {name: [asdict(run) for run in some] for name, some in runs.items()}
        json.dump({"loads": found, "idle": [asdict(wait) for wait in waits]}, sys.stdout)
        return
    for line in _table([_medians(some) for some in runs.values()]):
        print(line)
    if waits:
        p95, worst = median(wait.p95 for wait in waits), median(wait.worst for wait in waits)
        print(f"5 records a second, target 200 ms: p95 {p95 * 1000:.0f} ms, worst {worst * 1000:.0f} ms")


if __name__ == "__main__":
    _main()
