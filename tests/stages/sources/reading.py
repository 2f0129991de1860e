"""Reads sources in tests: all of them, in pieces, and again from each cursor."""

import json
from pathlib import Path
from typing import Any

from pipeline.batch import Failed
from pipeline.clock import Clock, SystemClock
from pipeline.stage import Chunk, Reader, SourceContext
from stages.sources.file_reader import FileReader
from stages.sources.files import FileSource

Seen = list[tuple[Any, str]]
"""Records, a bad one as its text and its reason, each with its position."""


def context_of(
    cursor: Any = None, *, max_record: int = 2**20, warnings: list[str] | None = None, clock: Clock | None = None
) -> SourceContext:
    warn = warnings.append if warnings is not None else _unexpected
    return SourceContext(
        "in", "test", clock or SystemClock(), warn=warn, cursor=json.loads(json.dumps(cursor)), max_record=max_record
    )


def _unexpected(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def seen_in(chunk: Chunk) -> Seen:
    assert chunk.position is not None
    bad = {i for i, record in enumerate(chunk.records) if isinstance(record, Failed)}
    assert bad == set(chunk.failed)
    return [
        (("bad", record.record, str(record.error)) if isinstance(record, Failed) else record, chunk.position(i))
        for i, record in enumerate(chunk.records)
    ]


async def chunks_of(reader: Reader) -> list[Chunk]:
    try:
        return [chunk async for chunk in reader.read()]
    finally:
        await reader.close()


async def read_chunks(source: FileSource, cursor: Any = None, **options: Any) -> list[Chunk]:
    return await chunks_of(await source.open(context_of(cursor, **options)))


async def read_seen(source: FileSource, cursor: Any = None, **options: Any) -> Seen:
    return [seen for chunk in await read_chunks(source, cursor, **options) for seen in seen_in(chunk)]


async def read_records(source: FileSource, cursor: Any = None, **options: Any) -> list[Any]:
    return [record for record, _ in await read_seen(source, cursor, **options)]


async def read_in_pieces(
    source: FileSource, block: int, records: int, cursor: Any = None, **options: Any
) -> list[Chunk]:
    context = context_of(cursor, **options)
    reader = FileReader(
        source.paths(), source.format(context), context, source.compression, block=block, records=records
    )
    try:
        await reader.open()
    except BaseException:
        await reader.close()
        raise
    return await chunks_of(reader)


async def check_resumes(source: FileSource, block: int, records: int, **options: Any) -> Seen:
    """Read in pieces, resume from every cursor, and return what there is."""
    whole = await read_in_pieces(source, block, records, **options)
    seen = [seen_in(chunk) for chunk in whole]
    for at, chunk in enumerate(whole):
        again = await read_in_pieces(source, block, records, chunk.cursor, **options)
        assert [s for c in again for s in seen_in(c)] == [s for later in seen[at + 1 :] for s in later]
        assert not again or again[-1].cursor == whole[-1].cursor
    return [s for each in seen for s in each]


def write(folder: Path, name: str, data: bytes | str) -> str:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)
