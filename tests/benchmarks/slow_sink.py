"""W3: a sink that takes 10 ms and 0.05 ms a record, four at once; batches that may grow are worth more than speed."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from typing import Any

from pipeline import Pipeline
from pipeline.stage import Batcher
from stages import batchers, processors, sinks, sources
from tests.benchmarks.contest import Answer, Goal, Peer, Results, Task, Workload, best

__all__ = ("GROWING", "SLOW_SINK")

BATCH = 100
_AT_ONCE = 4
_FIXED, _EACH = 0.01, 0.00005


class Slow:
    """The sink: waits, and counts."""

    def __init__(self) -> None:
        self.count = self.total = 0

    async def take(self, records: list[int]) -> list[int]:
        """Take a batch."""
        await asyncio.sleep(_FIXED + _EACH * len(records))
        self.count += len(records)
        self.total += sum(records)
        return records

    @property
    def answer(self) -> Answer:
        """Count and total."""
        return self.count, str(self.total)


def ideal(records: int) -> float:
    """Return the seconds that batches of 100 take at least."""
    return records / BATCH * (_FIXED + _EACH * BATCH) / _AT_ONCE


def _ours(batcher: Callable[[], Batcher]) -> Callable[[Task], Answer]:
    def run(task: Task) -> Answer:
        slow = Slow()
        pipeline = (
            Pipeline("slow", checkpoint="none")
            | sources.Iterable(range(task.records))
            | batcher()
            | processors.Call(slow.take, batch=True, concurrency=_AT_ONCE)
            | sinks.Discard()
        )
        asyncio.run(pipeline.run())
        return slow.answer

    return run


def _queue(task: Task) -> Answer:
    slow = Slow()

    async def run() -> None:
        waiting: asyncio.Queue[list[int]] = asyncio.Queue(_AT_ONCE)

        async def read() -> None:
            numbers = iter(range(task.records))
            while batch := list(islice(numbers, BATCH)):
                await waiting.put(batch)
            for _ in range(_AT_ONCE):
                await waiting.put([])

        async def write() -> None:
            while batch := await waiting.get():
                await slow.take(batch)

        await asyncio.gather(read(), *(write() for _ in range(_AT_ONCE)))

    asyncio.run(run())
    return slow.answer


def _streamable(task: Task) -> Answer:
    library: Any = import_module("streamable")
    slow = Slow()
    for _ in library.stream(range(task.records)).group(BATCH).map(slow.take, concurrency=_AT_ONCE):
        pass
    return slow.answer


def _share(peer: str) -> Callable[[Results, int], float]:
    return lambda results, records: ideal(records) / best(results[peer])


SLOW_SINK = Workload(
    "W3",
    "a slow sink, batches of 100, four at once",
    20_000,
    [
        Peer("queue of batches", _queue, ideal=ideal),
        Peer("ours", _ours(lambda: batchers.Fixed(size=BATCH)), ideal=ideal),
        Peer("streamable", _streamable, ["streamable"], ideal=ideal),
    ],
    goals=[Goal("share of the ideal", _share("ours"), 0.97, 0.95)],
)

_LOW = "adaptive to 50 ms, at most 500"
_HIGH = "adaptive to 280 ms, at most 5,000"
GROWING = Workload(
    "W3a",
    "the same sink, and batches that size themselves, against the ideal of batches of 100",
    400_000,
    [
        Peer(
            _LOW,
            _ours(lambda: batchers.Adaptive(target_latency=0.05, max_size=500)),
            every=False,
            ideal=ideal,
        ),
        Peer(
            _HIGH,
            _ours(lambda: batchers.Adaptive(target_latency=0.28, max_size=5000)),
            every=False,
            ideal=ideal,
        ),
    ],
    goals=[
        Goal("50 ms, x the fixed ideal", _share(_LOW), 2.0, 1.8),
        Goal("280 ms, x the fixed ideal", _share(_HIGH), 2.5, 2.3),
    ],
)
