"""W1, W5 and W6: lines of JSON are parsed, filtered, given two fields and written as JSON, 500 at a time."""

import asyncio
import gc
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from importlib import import_module
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pipeline import Pipeline
from pipeline.plan.keys import PipelineConfig
from stages import batchers, processors, sinks, sources
from tests.benchmarks.contest import Goal as To
from tests.benchmarks.contest import Measured, Peer, Task, Workload, ratio
from tests.benchmarks.etl_typed import bare_typed, ours_typed
from tests.benchmarks.logs import answer, input_path, prepare

__all__ = ("CHECKPOINT", "ETL", "MEMORY", "ours")

_BATCH = 500
_CONFIG = """
name: etl
{keys}
stages:
  - source: jsonl
    with: {{path: "{path}"}}
  - processor: filter
    with: {{where: "level != 'DEBUG'"}}
  - processor: map
    with: {{set: {{minute: "int(ts) // 60 * 60", rate: "http.bytes / http.ms"}}}}
  - batcher: fixed
    with: {{size: 500}}
  - sink: jsonl
    with: {{path: out.jsonl}}
"""


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(keys: str = "checkpoint: none") -> Callable[[Task], None]:
    """Return what runs our command with these keys of the pipeline."""

    def run(task: Task) -> None:
        from pipeline.cli.main import invoke

        config = task.folder / "etl.yaml"
        config.write_text(_CONFIG.format(keys=keys, path=input_path(task.inputs, task.records)))
        os.chdir(task.folder)
        code = invoke(["run", str(config)])
        if code:
            raise SystemExit(code)

    return run


def no_workers() -> str | None:
    """Return why there is no run by two workers."""
    return None if "workers" in PipelineConfig.__struct_fields__ else "there is no key `workers`"


# --- peers ------------------------------------------------------------------------------------------------------------


def keep(record: dict[str, Any]) -> bool:
    """Tell whether a record is no debugging."""
    level: str = record["level"]
    return level != "DEBUG"


def change(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its two more fields."""
    record["minute"] = int(record["ts"]) // 60 * 60
    http = record["http"]
    record["rate"] = http["bytes"] / http["ms"]
    return record


@contextmanager
def _files(task: Task) -> Generator[tuple[BinaryIO, FileIO]]:
    with (
        input_path(task.inputs, task.records).open("rb") as source,
        (task.folder / "out.jsonl").open("wb", buffering=0) as sink,
    ):
        yield source, sink


def _bare(source: Iterable[bytes], write: Callable[[list[Any]], None]) -> None:
    decode = msgspec.json.Decoder().decode
    batch: list[Any] = []
    for line in source:
        record = decode(line)
        if keep(record):
            batch.append(change(record))
            if len(batch) == _BATCH:
                write(batch)
                batch = []
    if batch:
        write(batch)


def bare(task: Task) -> None:
    """Loop over the lines: the yardstick."""
    encode = msgspec.json.Encoder().encode_lines
    with _files(task) as (source, sink):
        _bare(source, lambda batch: void(sink.write(encode(batch))))


def void(value: object) -> None:
    """Take a result that nobody needs."""


def bare_collecting_less(task: Task) -> None:
    """Loop over the lines with the garbage collector as our command sets it."""
    gc.freeze()
    gc.set_threshold(50_000)
    bare(task)


def bare_saved(task: Task) -> None:
    """Loop over the lines; each second sync the output, then commit the place."""
    encode = msgspec.json.Encoder().encode_lines
    state = sqlite3.connect(task.folder / "state.db", isolation_level=None)
    state.execute("PRAGMA journal_mode=WAL")
    state.execute("PRAGMA synchronous=FULL")
    state.execute("CREATE TABLE place (id INTEGER PRIMARY KEY, offset INTEGER)")
    due = time.monotonic() + 1
    with _files(task) as (source, sink):

        def save() -> None:
            nonlocal due
            os.fsync(sink.fileno())
            state.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (sink.tell(),))
            due = time.monotonic() + 1

        def write(batch: list[Any]) -> None:
            sink.write(encode(batch))
            if time.monotonic() >= due:
                save()

        _bare(source, write)
        save()
    state.close()


def queue(task: Task) -> None:
    """Hand chunks from task to task through queues of asyncio, as one would by hand."""
    asyncio.run(_queue(task))


async def _queue(task: Task) -> None:
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode_lines
    raw: asyncio.Queue[list[bytes]] = asyncio.Queue(4)
    done: asyncio.Queue[list[Any]] = asyncio.Queue(4)
    with _files(task) as (source, sink):

        async def read() -> None:
            lines = iter(source)
            while chunk := list(islice(lines, _BATCH)):
                await raw.put(chunk)
            await raw.put([])

        async def work() -> None:
            held: list[Any] = []
            while chunk := await raw.get():
                held += [change(record) for record in map(decode, chunk) if keep(record)]
                if len(held) >= _BATCH:
                    await done.put(held[:_BATCH])
                    del held[:_BATCH]
            if held:
                await done.put(held)
            await done.put([])

        async def write() -> None:
            while batch := await done.get():
                sink.write(encode(batch))

        await asyncio.gather(read(), work(), write())


def streamable(task: Task) -> None:
    """Chain the operators of streamable."""
    library: Any = import_module("streamable")
    encode = msgspec.json.Encoder().encode_lines
    with _files(task) as (source, sink):
        stream = library.stream(source).map(msgspec.json.Decoder().decode).filter(keep).map(change).group(_BATCH)
        for batch in stream:
            sink.write(encode(batch))


def aiostream(task: Task) -> None:
    """Pipe the operators of aiostream."""
    asyncio.run(_aiostream(task))


async def _aiostream(task: Task) -> None:
    library: Any = import_module("aiostream")
    pipe, encode = library.pipe, msgspec.json.Encoder().encode_lines
    with _files(task) as (source, sink):
        stream = library.stream.iterate(source) | pipe.map(msgspec.json.Decoder().decode) | pipe.filter(keep)
        stream = stream | pipe.map(change) | pipe.chunks(_BATCH)
        async with stream.stream() as batches:
            async for batch in batches:
                sink.write(encode(batch))


def bytewax(task: Task) -> None:
    """Let bytewax run it, by whole batches of lines."""
    flow_of: Any = import_module("bytewax.dataflow")
    op: Any = import_module("bytewax.operators")
    testing: Any = import_module("bytewax.testing")
    outputs: Any = import_module("bytewax.outputs")
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode_lines
    with _files(task) as (source, sink):
        held: list[Any] = []

        class Part(outputs.StatelessSinkPartition):  # type: ignore[misc]
            def write_batch(self, records: list[Any]) -> None:
                held.extend(records)
                while len(held) >= _BATCH:
                    sink.write(encode(held[:_BATCH]))
                    del held[:_BATCH]

        class Out(outputs.DynamicSink):  # type: ignore[misc]
            def build(self, *place: Any) -> Part:
                return Part()

        flow = flow_of.Dataflow("etl")
        lines = op.input("in", flow, testing.TestingSource(source, batch_size=_BATCH))

        def work(chunk: list[bytes]) -> list[Any]:
            return [change(record) for record in map(decode, chunk) if keep(record)]

        op.output("out", op.flat_map_batch("work", lines, work), Out())
        testing.run_main(flow)
        if held:
            sink.write(encode(held))


def ours_functions(task: Task) -> None:
    """Run our pipeline with the peers' functions in place of expressions: what is left is the engine."""
    gc.freeze()
    gc.set_threshold(50_000)
    pipeline = (
        Pipeline("functions", checkpoint="none")
        | sources.Jsonl(path=str(input_path(task.inputs, task.records)))
        | processors.Filter(keep)
        | processors.Call(change)
        | batchers.Fixed(size=_BATCH)
        | sinks.Jsonl(path=str(task.folder / "out.jsonl"))
    )
    asyncio.run(pipeline.run())


# --- workloads --------------------------------------------------------------------------------------------------------


def _prepare_both(folder: Path, records: int) -> None:
    prepare(folder, records)
    prepare(folder, 5 * records)


ETL = Workload(
    "W1",
    "parse, filter, transform, write JSON lines",
    200_000,
    [
        Peer("bare", bare),
        Peer("ours", ours()),
        Peer("ours, functions", ours_functions),
        Peer("bare, collector as ours", bare_collecting_less),
        Peer("bare, typed", bare_typed),
        Peer("ours, typed", ours_typed),
        Peer("ours, 2 workers", ours("workers: 2\npartition: 8MiB"), missing=no_workers),
        Peer("bare, 5 times", bare, times=5, every=False),
        Peer(
            "ours, 2 workers, 5 times", ours("workers: 2\npartition: 38MiB"), missing=no_workers, times=5, every=False
        ),
        Peer("queue of chunks", queue),
        Peer("streamable", streamable, ["streamable"]),
        Peer("bytewax, batches", bytewax, ["bytewax"]),
        Peer("aiostream", aiostream, ["aiostream"], every=False),
    ],
    _prepare_both,
    answer,
    [
        To("dicts, x bare", ratio("ours", "bare"), 1.10, 0.95),
        To("typed, x bare", ratio("ours, typed", "bare"), 1.45, 1.30),
        # The reference has a million records: of the time that fewer take, what begins and ends is too large a part.
        To("2 workers, x bare", ratio("ours, 2 workers, 5 times", "bare, 5 times"), 1.90, 1.60),
    ],
    fewest=1000,
)

CHECKPOINT = Workload(
    "W5",
    "W1 with progress made durable each second",
    600_000,
    [
        Peer("ours, no checkpoints", ours(), every=False),
        Peer("ours, each second", ours("checkpoint: {interval: 1s}"), every=False),
        Peer("bare", bare, every=False),
        Peer("bare, each second", bare_saved, every=False),
    ],
    prepare,
    answer,
    [To("x without", ratio("ours, each second", "ours, no checkpoints"), 0.97, 0.93)],
    fewest=1000,
)


def _peak(results: dict[str, list[Measured]], records: int) -> float:
    return max(run.peak for run in results["ours, 5 times"])


def _growth(results: dict[str, list[Measured]], records: int) -> float:
    return min(run.peak for run in results["ours, 5 times"]) - min(run.peak for run in results["ours"])


MEMORY = Workload(
    "W6",
    "memory of W1, and of 5 times its input",
    60_000,
    [
        Peer("bare", bare, every=False),
        Peer("bare, 5 times", bare, times=5, every=False),
        Peer("ours", ours("checkpoint: {interval: 1s}"), every=False),
        Peer("ours, 5 times", ours("checkpoint: {interval: 1s}"), times=5, every=False),
    ],
    _prepare_both,
    answer,
    [To("peak, MB", _peak, 45, 60, least=False), To("growth, MB", _growth, 2, 5, least=False)],
    fewest=1000,
)
