"""Every built-in stage keeps the contract that a stranger's stage is checked by."""

import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Failed, Many
from pipeline.stage import Place, Processor, Reader, RecordError, Resume, Sink, SinkContext, Source
from pipeline.testing import check_processor, check_sink, check_source
from stages import processors, sinks, sources
from stages.sinks.collect import CollectWriter
from stages.sinks.files import Roll
from stages.sinks.stdout import StdoutWriter
from stages.sources.inlet import InletReader
from stages.streams import adapt

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- sources ----------------------------------------------------------------------------------------------------------

JSONL = b'{"id": 1, "text": "one"}\nnot json\n\n{"id": 2, "text": "two\xc3\xbc"}\n{"id": 3}\n[4]\n{"id": 5'
CSV = b'id,text\n1,one\n2,"two\nlines"\n3,short,long\n4,"four ""4"""\n5,five\n'


def jsonl(folder: Path) -> Source:
    (folder / "in.jsonl").write_bytes(JSONL)
    return sources.Jsonl(path=str(folder / "in.jsonl"))


def jsonl_files(folder: Path) -> Source:
    for number in range(3):
        (folder / f"in{number}.jsonl").write_bytes(JSONL)
    (folder / "in3.jsonl").write_bytes(b"")
    return sources.Jsonl(path=str(folder / "in*.jsonl"))


def jsonl_gzip(folder: Path) -> Source:
    (folder / "in.jsonl.gz").write_bytes(gzip.compress(JSONL[:40], mtime=0) + gzip.compress(JSONL[40:], mtime=0))
    return sources.Jsonl(path=str(folder / "in.jsonl.gz"))


def csv_file(folder: Path) -> Source:
    (folder / "in.csv").write_bytes(CSV)
    return sources.Csv(path=str(folder / "in.csv"), types={"id": "int"}, null_values=["five"])


def lines(folder: Path) -> Source:
    (folder / "in.txt").write_bytes(b"one\r\ntwo\n\xff\n\nfour")
    return sources.Lines(path=str(folder / "in.txt"))


def generate(folder: Path) -> Source:
    return sources.Generate(count=1200, record={"n": "n", "x": "random()", "bad": "1 / (n - 7)"})


def table(folder: Path) -> Source:
    path = folder / "in.db"
    if not path.exists():
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
            connection.executemany("INSERT INTO t VALUES (?, ?)", [(n * 3, f"text {n}") for n in range(1200)])
        connection.close()
    return sources.Sqlite(path=str(path), table="t")


SOURCES: dict[str, tuple[Callable[[Path], Source], int]] = {
    "jsonl": (jsonl, 6),
    "jsonl files": (jsonl_files, 18),
    "jsonl gzip": (jsonl_gzip, 6),
    "csv": (csv_file, 5),
    "lines": (lines, 5),
    "generate": (generate, 1200),
    "sqlite": (table, 1200),
}


@pytest.mark.parametrize("kind", list(SOURCES))
async def test_a_source_keeps_its_contract(kind: str, tmp_path: Path) -> None:
    make, count = SOURCES[kind]
    assert len(await check_source(lambda: make(tmp_path))) == count


async def test_iterables_keep_the_contract_of_a_source_that_goes_one_way() -> None:
    records = [{"n": n} for n in range(700)]
    assert await check_source(lambda: sources.Iterable(records)) == records

    async def counted() -> Any:
        for record in records:
            await anyio.lowlevel.checkpoint()
            yield record

    assert await check_source(lambda: sources.Iterable(counted)) == records


async def test_the_inlet_keeps_the_contract_of_a_source_that_is_fed() -> None:
    def feed(reader: Reader) -> None:
        assert isinstance(reader, InletReader)
        for n in range(1200):
            reader.put_nowait(Place(n))
        reader.close_input()

    assert await check_source(sources.Inlet, feed=feed) == list(range(1200))


# --- processors -------------------------------------------------------------------------------------------------------

RECORDS: list[dict[str, Any]] = [
    {"id": 1, "n": 5, "tags": ["a", "b"]},
    {"id": 2, "n": None, "tags": []},
    {"id": 1, "n": 7, "tags": ["c"]},
    {"id": 3, "n": "x"},
    {"id": 4, "n": 2, "tags": "none"},
    {"n": 9},
    {"id": [5], "n": 4, "tags": ["d", "e", "f"]},
]


def plain(record: Any) -> Any:
    """Return what a user's function may: a record, None, several, a failure; or fail."""
    match record["n"]:
        case None:
            return None
        case 7:
            return Many([record, {"n": 70}])
        case 2:
            return Failed(record, "two")
        case "x":
            raise RecordError("x")
        case _:
            return record | {"seen": True}


async def awaited(record: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    result = plain(record)
    await anyio.lowlevel.checkpoint()
    return result


def batched(records: list[Any]) -> list[Any]:
    return [plain(record) for record in records]


async def batched_async(records: list[Any]) -> list[Any]:
    await anyio.lowlevel.checkpoint()
    return batched(records)


def summed(records: list[Any]) -> list[Any]:
    return [{"count": len(records)}]


def in_thread(record: Any) -> Any:
    return plain(record)


def _seen(record: Any) -> Any:
    return record | {"seen": True}


def streamed() -> Processor:
    from aiostream import pipe

    return _adapted(pipe.map(_seen))  # pyright: ignore


def chunked() -> Processor:
    from aiostream import pipe

    return _adapted(pipe.chunks(3))  # pyright: ignore


def _adapted(operator: Any) -> Processor:
    stage = adapt(operator)
    assert isinstance(stage, Processor)
    return stage


PROCESSORS: dict[str, tuple[Callable[[], Processor], int]] = {
    "filter": (lambda: processors.Filter(where="n > 4"), 3),
    "filter by function": (lambda: processors.Filter(where=lambda record: record["id"] == 1), 2),
    "map": (lambda: processors.Map(set={"m": "n * 2"}, drop=["tags"], rename={"id": "key"}), 6),
    "map to few": (lambda: processors.Map(keep=["n"]), 7),
    "call": (lambda: processors.Call(plain), 5),
    "call async": (lambda: processors.Call(awaited, concurrency=3), 5),
    "call batch": (lambda: processors.Call(batched, batch=True), 5),
    "call batch async": (lambda: processors.Call(batched_async, batch=True, concurrency=2), 5),
    "call in a thread": (lambda: processors.Call(in_thread, executor="thread"), 5),
    "call aggregate": (lambda: processors.Call(summed, aggregate=True, batch=True), 7),
    "validate": (lambda: processors.Validate(schema={"id": "int", "n": "int"}, unknown="drop"), 3),
    "explode": (lambda: processors.Explode(field="tags"), 6),
    "dedupe": (lambda: processors.Dedupe(by="id"), 6),
    "aiostream map": (streamed, 7),
    "aiostream chunks": (chunked, 3),
}


@pytest.mark.parametrize("kind", list(PROCESSORS))
async def test_a_processor_keeps_its_contract(kind: str) -> None:
    make, count = PROCESSORS[kind]
    assert len(await check_processor(make, RECORDS)) == count


# --- sinks ------------------------------------------------------------------------------------------------------------


class Places:
    """A new empty place for each sink that is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(self, name: str) -> str:
        self.made += 1
        place = self.folder / str(self.made)
        place.mkdir()
        return str(place / name)


def text_of(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data).decode()
    if path.suffix == ".zst":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            return reader.read().decode()
    return data.decode()


def json_lines(sink: Any) -> list[Any]:
    """Return the records of a sink's files, parts in their order and templated files by their names."""
    folder = Path(sink.path).parent
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [json.loads(line) for path in files for line in text_of(path).splitlines()]


def csv_rows(sink: Any) -> list[Any]:
    path = Path(sink.path)
    if not path.exists():
        return []
    return [{"id": int(row["id"]), "text": row["text"]} for row in csv.DictReader(io.StringIO(text_of(path)))]


def plain_lines(sink: Any) -> list[Any]:
    path = Path(sink.path)
    return [{"line": line} for line in text_of(path).splitlines()] if path.exists() else []


def rows(sink: Any) -> list[Any]:
    connection = sqlite3.connect(sink.path)
    try:
        found = connection.execute(f"SELECT id, text FROM {sink.table} ORDER BY rowid").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()
    return [{"id": id, "text": text} for id, text in found]


BAD = {"id": 99, "text": "\ud800"}

SINKS: dict[str, tuple[Callable[[Places], Sink], Callable[[Any], list[Any]], Any]] = {
    "jsonl": (lambda place: sinks.Jsonl(path=place("out.jsonl")), json_lines, BAD),
    "jsonl gzip": (lambda place: sinks.Jsonl(path=place("out.jsonl.gz")), json_lines, BAD),
    "jsonl zstd": (lambda place: sinks.Jsonl(path=place("out.jsonl.zst")), json_lines, BAD),
    "jsonl parts": (lambda place: sinks.Jsonl(path=place("out.jsonl"), roll=Roll(size=80)), json_lines, BAD),
    "jsonl by field": (lambda place: sinks.Jsonl(path=place("{half}.jsonl")), json_lines, None),
    "csv": (lambda place: sinks.Csv(path=place("out.csv")), csv_rows, BAD),
    "lines": (lambda place: sinks.Lines(path=place("out.txt")), plain_lines, {"line": "two\nlines"}),
    "sqlite": (lambda place: sinks.Sqlite(path=place("out.db"), table="t"), rows, BAD),
    "sqlite upsert": (
        lambda place: sinks.Sqlite(path=place("out.db"), table="t", mode="upsert", key="id"),
        rows,
        BAD,
    ),
}


@pytest.mark.parametrize("kind", list(SINKS))
async def test_a_sink_keeps_its_contract(kind: str, tmp_path: Path) -> None:
    make, read_back, bad = SINKS[kind]
    records: list[Any] | None = None
    if kind == "lines":
        records = [{"line": f"line {n}"} for n in range(12)]
    elif kind == "jsonl by field":
        records = [{"id": n, "half": "ab"[n // 6]} for n in range(12)]
    place = Places(tmp_path)
    await check_sink(lambda: make(place), read_back, records=records, bad=bad)


async def test_every_built_in_sink_that_outlives_a_run_is_exact(tmp_path: Path) -> None:
    place = Places(tmp_path)
    exact = (Resume.POSITION, Resume.TRANSACTION)
    assert all(make(place).resumes() in exact for make, _, _ in SINKS.values())


class Kept(sinks.Collect, kw_only=True):
    """Remembers its writers."""

    writers: list[CollectWriter]

    async def open(self, context: SinkContext) -> CollectWriter:
        self.writers.append(await super().open(context))
        return self.writers[-1]


async def test_collect_keeps_the_contract_of_a_sink_in_memory() -> None:
    def records(sink: Kept) -> list[Any]:
        return sink.writers[-1].records

    await check_sink(lambda: Kept(writers=[]), records)


async def test_discard_keeps_the_contract_of_a_sink_that_nobody_can_read() -> None:
    await check_sink(sinks.Discard, None)


class Redirected(sinks.Stdout, kw_only=True):
    """Writes to a file in place of standard output."""

    descriptor: int
    path: str

    async def open(self, context: SinkContext) -> StdoutWriter:
        return StdoutWriter(self.descriptor)


async def test_stdout_keeps_the_contract_of_a_sink_that_cannot_be_cut_back(tmp_path: Path) -> None:
    place = Places(tmp_path)
    with ExitStack() as stack:

        def make() -> Sink:
            path = place("out.jsonl")
            file = stack.enter_context(open(path, "ab"))
            return Redirected(descriptor=file.fileno(), path=path)

        await check_sink(make, json_lines, bad=BAD)


async def test_all_built_in_stages_are_checked_here() -> None:
    covered = {kind.split()[0] for kind in [*SOURCES, *PROCESSORS, *SINKS]} - {"aiostream"}
    covered |= {"iterable", "inlet", "collect", "discard", "stdout"}
    every = {*sources.__all__, *processors.__all__, *sinks.__all__}
    assert covered == {name.lower() for name in every}
