"""W1 with typed records: what is known of a record spares its dictionaries."""

import asyncio
import gc

import msgspec

from pipeline import Pipeline
from stages import batchers, processors, sinks, sources
from tests.benchmarks.contest import Task
from tests.benchmarks.logs import input_path

__all__ = ("bare_typed", "ours_typed")

_BATCH = 500


class Geo(msgspec.Struct, gc=False):
    lat: float
    lon: float


class User(msgspec.Struct, gc=False):
    id: int
    name: str
    geo: Geo


class Http(msgspec.Struct, gc=False):
    path: str
    bytes: int
    ms: int


class Line(msgspec.Struct, gc=False):
    id: int
    ts: float
    level: str
    host: str
    service: str
    text: str
    user: User
    http: Http
    tags: list[str]


class Rated(Line, gc=False):
    minute: int = 0
    rate: float = 0.0


def bare_typed(task: Task) -> None:
    """Loop over the lines with types."""
    # The two fields are filled in later, so one type serves for reading and writing.
    decode, encode = msgspec.json.Decoder(Rated).decode, msgspec.json.Encoder().encode_lines
    batch: list[Rated] = []
    with (
        input_path(task.inputs, task.records).open("rb") as source,
        (task.folder / "out.jsonl").open("wb", buffering=0) as sink,
    ):
        for line in source:
            record = decode(line)
            if record.level != "DEBUG":
                record.minute = int(record.ts) // 60 * 60
                record.rate = record.http.bytes / record.http.ms
                batch.append(record)
                if len(batch) == _BATCH:
                    sink.write(encode(batch))
                    batch = []
        sink.write(encode(batch))


def ours_typed(task: Task) -> None:
    """Run our pipeline, in Python, with the garbage collector as the command sets it."""
    gc.freeze()
    gc.set_threshold(50_000)
    typed = (
        Pipeline("typed", checkpoint="none")
        | sources.Jsonl(path=str(input_path(task.inputs, task.records)), schema=Line)
        | processors.Filter("level != 'DEBUG'")
        | processors.Map(set={"minute": "int(ts) // 60 * 60", "rate": "http.bytes / http.ms"})
        | batchers.Fixed(size=_BATCH)
        | sinks.Jsonl(path=str(task.folder / "out.jsonl"))
    )
    asyncio.run(typed.run())
