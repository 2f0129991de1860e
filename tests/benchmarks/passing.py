"""W2: numbers pass through, a hundred at a time, and nothing is done with them: what the engine itself costs."""

import asyncio
from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from typing import Any

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.stage import Sink, SinkContext, Writer
from stages import batchers, processors, sources
from tests.benchmarks.contest import Answer, Goal, Peer, Results, Task, Workload, best

__all__ = ("Counted", "PASSING", "passing")

BATCH = 100


class Counted(Writer):
    """Counts batches and adds up their numbers."""

    def __init__(self) -> None:
        self.count = self.total = 0

    async def write(self, batch: Batch) -> None:
        self.add(batch.records)

    async def close(self) -> None:
        pass

    def add(self, records: list[int]) -> None:
        """Add a batch."""
        self.count += len(records)
        self.total += sum(records)

    @property
    def answer(self) -> Answer:
        """Count and total."""
        return self.count, str(self.total)


class Counting(Sink, kw_only=True):
    """A sink that counts."""

    into: Any

    def durable(self) -> bool:
        return False

    async def open(self, context: SinkContext) -> Writer:
        counted: Counted = self.into
        return counted


def same(records: list[int]) -> list[int]:
    """Return what it is given."""
    return records


def passing(records: Iterable[int], counted: Counted) -> Pipeline:
    """Return our pipeline of this workload."""
    return (
        Pipeline("passing", checkpoint="none")
        | sources.Iterable(records)
        | batchers.Fixed(size=BATCH)
        | processors.Call(same, batch=True)
        | Counting(into=counted)
    )


def _ours(task: Task) -> Answer:
    counted = Counted()
    asyncio.run(passing(range(task.records), counted).run())
    return counted.answer


def _bare(task: Task) -> Answer:
    counted, numbers = Counted(), iter(range(task.records))
    while batch := list(islice(numbers, BATCH)):
        counted.add(same(batch))
    return counted.answer


def _queue(task: Task) -> Answer:
    counted = Counted()

    async def run() -> None:
        first: asyncio.Queue[list[int]] = asyncio.Queue(4)
        second: asyncio.Queue[list[int]] = asyncio.Queue(4)

        async def read() -> None:
            numbers = iter(range(task.records))
            while batch := list(islice(numbers, BATCH)):
                await first.put(batch)
            await first.put([])

        async def work() -> None:
            while batch := await first.get():
                await second.put(same(batch))
            await second.put([])

        async def write() -> None:
            while batch := await second.get():
                counted.add(batch)

        await asyncio.gather(read(), work(), write())

    asyncio.run(run())
    return counted.answer


def _streamable(task: Task) -> Answer:
    library: Any = import_module("streamable")
    counted = Counted()
    for batch in library.stream(range(task.records)).group(BATCH).map(same):
        counted.add(batch)
    return counted.answer


def _aiostream(task: Task) -> Answer:
    library: Any = import_module("aiostream")
    counted = Counted()

    async def run() -> None:
        stream = library.stream.iterate(range(task.records)) | library.pipe.chunks(BATCH) | library.pipe.map(same)
        async with stream.stream() as batches:
            async for batch in batches:
                counted.add(batch)

    asyncio.run(run())
    return counted.answer


def _each(results: Results, records: int) -> float:
    return best(results["ours"], processor=True) / records * 1e9


PASSING = Workload(
    "W2",
    "numbers pass through in batches of 100",
    500_000,
    [
        Peer("bare", _bare),
        Peer("ours", _ours),
        Peer("queue of batches", _queue),
        Peer("streamable", _streamable, ["streamable"]),
        Peer("aiostream", _aiostream, ["aiostream"], every=False),
    ],
    goals=[Goal("CPU ns a record", _each, 100, 175, least=False)],
)
