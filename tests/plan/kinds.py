"""Declarations of stages for the tests of the plan: the keys of the built-in ones, and nothing that runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.plan.registry import Registry
from pipeline.stage import Batcher, Declared, Duration, Processor, Rate, Resume, Sink, Size, Source, Stage, key

__all__ = ("KINDS", "registry")


class Jsonl(Source, kw_only=True):
    path: Annotated[str | list[str], key("File, files or glob.", file=True)]
    follow: Annotated[bool, key("Go on as the file grows.")] = False
    schema: Annotated[dict[str, str] | type[Any] | None, key("Types of fields.")] = None

    def replays(self) -> bool:
        return self.path != "-"

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path}


class Csv(Jsonl, kw_only=True):
    delimiter: Annotated[str, Meta(min_length=1, max_length=1), key("Between fields.")] = ","
    header: Annotated[bool | list[str], key("Whether there is one, or the names.")] = True
    types: Annotated[dict[str, Literal["int", "float", "str", "bool"]], key("Types of columns.")] = msgspec.field(
        default_factory=dict[str, Any]
    )
    null_values: Annotated[list[str], key("Texts that mean nothing.")] = msgspec.field(default_factory=list[str])


class Generate(Source, kw_only=True):
    count: Annotated[int | None, Meta(ge=0), key("How many.")] = None
    rate: Annotated[Rate | None, key("How many a second.")] = None
    record: Annotated[dict[str, str], key("Fields.", expression=True, parameters=("n",))] = msgspec.field(
        default_factory=lambda: {"n": "n"}
    )


class Iterable_(Source, kw_only=True):
    records: Annotated[Callable[[], Iterable[Any]], key("Gives any iterable.")]

    def replays(self) -> bool:
        return False


class Fixed(Batcher, kw_only=True):
    size: Annotated[int, Meta(ge=1), key("Records.")] = 500
    linger: Annotated[Duration | Literal["auto"], Meta(gt=0), key("Longest wait.")] = 1.0


class Adaptive(Batcher, kw_only=True):
    target_latency: Annotated[Duration, Meta(gt=0), key("What to aim at.")]
    max_size: Annotated[int, Meta(ge=1), key("Largest batch.")] = 10_000
    min_size: Annotated[int, Meta(ge=1), key("Smallest batch.")] = 1
    percentile: Annotated[int | Literal["mean"], Meta(ge=1, le=99), key("Of latencies.")] = 95
    margin: Annotated[float, Meta(ge=0, lt=1), key("Kept free.")] = 0.05

    def problems(self) -> Iterable[tuple[str, str]]:
        if self.min_size > self.max_size:
            yield "min_size", f"expected at most max_size, {self.max_size}"


class Filter(Processor, kw_only=True):
    where: Annotated[str | Callable[[Any], Any], key("What stays.", expression=True)]


class Map(Processor, kw_only=True):
    set: Annotated[dict[str, str], key("Fields to set.", expression=True)] = msgspec.field(
        default_factory=dict[str, Any]
    )
    drop: Annotated[list[str], key("Fields to drop.")] = msgspec.field(default_factory=list[str])


class Call(Processor, kw_only=True):
    function: Annotated[str | Callable[..., Any], key("What is called.", function=True)]
    batch: Annotated[bool, key("Takes a list.")] = False
    aggregate: Annotated[bool, key("Returns any list.")] = False
    executor: Annotated[Literal["inline", "thread", "process"], key("Where it runs.")] = "inline"
    arguments: Annotated[dict[str, Any], key("Passed as keywords.")] = msgspec.field(default_factory=dict[str, Any])

    def problems(self) -> Iterable[tuple[str, str]]:
        if self.timeout is not None and self.executor == "inline":
            yield "timeout", "an inline synchronous function can't be stopped; use 'executor: thread'"


class Dedupe(Processor, kw_only=True):
    by: Annotated[str | Callable[[Any], Any], key("What is the same.", expression=True)]

    def stateful(self) -> bool:
        return True


class Stream(Processor, kw_only=True):
    def resumable(self) -> bool:
        return False


class Roll(Declared, kw_only=True):
    size: Annotated[Size | None, key("Bytes of a part.")] = None
    age: Annotated[Duration | None, key("Age of a part.")] = None


class JsonlSink(Sink, kw_only=True):
    path: Annotated[str, Meta(min_length=1), key("File to write.", file=True)]
    mode: Annotated[Literal["create", "append", "overwrite"], key("What to do with what is there.")] = "create"
    roll: Annotated[Roll | None, key("When a part ends.")] = None

    def resumes(self) -> Resume:
        return Resume.POSITION

    def identity(self) -> Mapping[str, Any]:
        return {"path": self.path}


class Sqlite(Sink, kw_only=True):
    path: Annotated[str, key("The database.", file=True)]
    table: Annotated[str, key("The table.")]
    columns: Annotated[list[str] | None, key("The columns.")] = None
    mode: Annotated[Literal["insert", "upsert"], key("What to do with what is there.")] = "insert"

    def resumes(self) -> Resume:
        return Resume.TRANSACTION


class Upsert(Sink, kw_only=True):
    def resumes(self) -> Resume:
        return Resume.UPSERT


class Stdout(Sink, kw_only=True):
    def durable(self) -> bool:
        return False


class Http(Sink, kw_only=True):
    url: Annotated[str, key("Where to.")] = ""


KINDS: Mapping[str, Mapping[str, type[Stage]]] = {
    "source": {"jsonl": Jsonl, "csv": Csv, "generate": Generate, "iterable": Iterable_},
    "batcher": {"fixed": Fixed, "adaptive": Adaptive},
    "processor": {"filter": Filter, "map": Map, "call": Call, "dedupe": Dedupe, "stream": Stream},
    "sink": {"jsonl": JsonlSink, "sqlite": Sqlite, "stdout": Stdout, "upsert": Upsert, "http": Http},
}


def registry() -> Registry:
    """Return a registry of these kinds, without a place that code may come from."""
    return Registry(kinds=KINDS)
