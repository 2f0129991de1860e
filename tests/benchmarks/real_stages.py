"""What the benchmark of the real event loop sends batches through, with a switch that makes it 3 times slower."""

import asyncio
import hashlib
import random
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.batch import Batch
from pipeline.stage import Sink, SinkContext, Stage, Writer
from stages import processors, sinks
from tests.benchmarks.real_http import Client

__all__ = ("LOADS", "SLOWER", "Load", "Place")

SLOWER = 3.0


@dataclass(frozen=True)
class Place:
    """Stages that are ready to be run through; ``slow_down`` makes them `SLOWER` from now on."""

    stages: list[Stage]
    slow_down: Callable[[], None]


@dataclass(frozen=True)
class Load:
    """A name, the target in seconds, and what makes the stages for one run."""

    name: str
    target: float
    place: Callable[[], AbstractAsyncContextManager[Place]]


class _Sleeping(Writer):
    """Takes 10 ms a batch and 0.1 ms a record, with lognormal noise of 10 %."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._noise = random.Random(1)

    async def write(self, batch: Batch) -> None:
        seconds = (0.010 + 0.0001 * len(batch.records)) * self._noise.lognormvariate(-0.005, 0.1)
        await asyncio.sleep(self.factor * seconds)


class Sleep(Sink, kw_only=True):
    """A sink that only takes time."""

    writer: Any

    def durable(self) -> bool:
        """Return False: it keeps nothing."""
        return False

    async def open(self, context: SinkContext) -> Writer:
        """Return the writer that it was made with."""
        opened: Writer = self.writer
        return opened


@asynccontextmanager
async def _sleep() -> AsyncGenerator[Place]:
    writer = _Sleeping()

    def slow_down() -> None:
        writer.factor = SLOWER

    yield Place([Sleep(writer=writer)], slow_down)


@asynccontextmanager
async def _sqlite() -> AsyncGenerator[Place]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.db"

        def slow_down() -> None:
            # Every row then makes the database look through a table for something that is not there.
            with sqlite3.connect(path, timeout=10) as connection:
                connection.executescript(_SLOWED)
            connection.close()

        yield Place([sinks.Sqlite(path=str(path), table="rows")], slow_down)


_SLOWED = """
create table burden (n integer);
insert into burden with recursive up (n) as (select 1 union all select n + 1 from up where n < 120) select n from up;
create trigger slow after insert on rows begin
  select count(*) from burden where n = -new.n;
end;
"""


@asynccontextmanager
async def _http() -> AsyncGenerator[Place]:
    async with Client() as client:

        def slow_down() -> None:
            client.factor = SLOWER

        yield Place([processors.Call(client.post, batch=True), sinks.Discard()], slow_down)


@asynccontextmanager
async def _cpu() -> AsyncGenerator[Place]:
    rounds = 40

    def digest(record: dict[str, Any]) -> dict[str, Any]:
        value = record["text"].encode()
        for _ in range(rounds):
            value = hashlib.sha256(value).digest()
        record["digest"] = value.hex()
        return record

    def slow_down() -> None:
        nonlocal rounds
        rounds = int(rounds * SLOWER)

    yield Place([processors.Call(digest), sinks.Discard()], slow_down)


LOADS = (
    Load("sleep", 0.1, _sleep),
    Load("sqlite", 0.06, _sqlite),
    Load("http", 0.1, _http),
    Load("cpu", 0.1, _cpu),
)
