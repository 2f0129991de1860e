"""K18: the benchmark of the Kafee guide: 200 records at 5 ms each, or in batches of 10 ms."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pipeline import Pipeline
from stages import batchers, processors, sinks, sources
from tests.benchmarks.contest import Goal, Own, Peer, Results, Task, Workload, best

__all__ = ("GUIDE", "rate", "rate_of_loop")

_BATCHED, _SINGLE = 0.01, 0.005


class Service:
    """Waits as long as the guide's; says when it began and ended."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.count = self.total = 0

    async def one(self, record: int) -> int:
        """Take a record."""
        await self._take([record], _SINGLE)
        return record

    async def some(self, records: list[int]) -> list[int]:
        """Take a batch."""
        await self._take(records, _BATCHED)
        return records

    async def _take(self, records: list[int], seconds: float) -> None:
        self.began = self.began or time.perf_counter()
        await asyncio.sleep(seconds)
        self.ended = time.perf_counter()
        self.count += len(records)
        self.total += sum(records)


async def rate(size: int, records: int = 200) -> float:
    """Return the records a second of the guide's set-up, from the first call to the end of the last."""
    service = await _served(size, records)
    return records / (service.ended - service.began)


async def rate_of_loop(size: int, records: int = 200) -> float:
    """Return the records a second of a loop that does nothing but the guide's waits."""
    service, numbers = Service(), list(range(records))
    for place in range(0, records, size):
        await (service.one(place) if size == 1 else service.some(numbers[place : place + size]))
    return records / (service.ended - service.began)


async def _served(size: int, records: int) -> Service:
    service = Service()
    pipeline: Any = Pipeline("guide", checkpoint="none") | sources.Iterable(range(records))
    if size == 1:
        pipeline = pipeline | processors.Call(service.one)
    else:
        pipeline = pipeline | batchers.Fixed(size=size) | processors.Call(service.some, batch=True)
    await (pipeline | sinks.Discard()).run()
    return service


def _ours(size: int) -> Callable[[Task], Own]:
    def run(task: Task) -> Own:
        service = asyncio.run(_served(size, task.records))
        return Own((service.count, str(service.total)), service.ended - service.began)

    return run


def ideal(size: int) -> Callable[[int], float]:
    """Return the seconds that some records take at least, by how many."""
    return lambda records: records * _SINGLE if size == 1 else records / size * _BATCHED


def _share(peer: str, size: int) -> Callable[[Results, int], float]:
    return lambda results, records: ideal(size)(records) / best(results[peer])


SIZES = {1: "one by one", 10: "batches of 10", 50: "batches of 50"}
GUIDE = Workload(
    "K18",
    "200 records of 5 ms, or 10 ms a batch",
    200,
    [Peer(name, _ours(size), ideal=ideal(size)) for size, name in SIZES.items()],
    goals=[Goal(f"{name}, share of the ceiling", _share(name, size), 0.95, 0.90) for size, name in SIZES.items()],
    fewest=50,
)
