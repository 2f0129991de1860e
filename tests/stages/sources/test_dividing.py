"""Files are divided between records, and what is read of the partitions is what is read of the whole."""

import csv
import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.stage import Partition
from stages import sources
from stages.sources.files import FileSource
from tests.stages.sources.reading import Seen, context_of, seen_in

pytestmark = pytest.mark.anyio

TEXTS = ["a", "b,c", 'q"x"', "line\nbreak", "", '"', 'x\n"y"\n', "ü"]


async def read(source: FileSource, partition: Partition | None = None) -> Seen:
    context = context_of()
    context.partition = None if partition is None else json.loads(json.dumps(partition.what))
    reader = await source.open(context)
    try:
        return [each async for chunk in reader.read() for each in seen_in(chunk)]
    finally:
        await reader.close()


async def read_parts(source: FileSource, partitions: list[Partition]) -> Seen:
    return [each for partition in partitions for each in await read(source, partition)]


def rows_of(count: int, chance: random.Random) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=chance.choice(["\n", "\r\n"]))
    writer.writerow(["a", "b", "c"])
    for number in range(count):
        writer.writerow([number, *("".join(chance.choices(TEXTS, k=chance.randint(0, 3))) for _ in "bc")])
    return text.getvalue().encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 200),
    size=st.integers(20, 4000),
    mark=st.booleans(),
    stray=st.booleans(),
    ended=st.booleans(),
)
async def test_rows_of_partitions_are_the_rows_of_the_whole_with_their_lines(
    seed: int, count: int, size: int, mark: bool, stray: bool, ended: bool, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    content = rows_of(count, chance)
    if stray:
        place = chance.randrange(len(content))
        content = content[:place] + b'"' + content[place:]
    content = (b"\xef\xbb\xbf" if mark else b"") + (content if ended else content.rstrip(b"\r\n"))
    (tmp_path / "in.csv").write_bytes(content)
    source = sources.Csv(path=str(tmp_path / "in.csv"), header=True if not stray else ["a", "b", "c"])
    assert await read_parts(source, source.divide(size, [])) == await read(source)


@pytest.mark.parametrize("size", [100, 1000, 10**6])
async def test_lines_of_partitions_are_the_lines_of_the_whole(size: int, tmp_path: Path) -> None:
    lines = [json.dumps({"i": i, "t": "x" * (i % 50)}) for i in range(300)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines[:100], "bad", "", *lines[100:]]))
    source = sources.Jsonl(path=str(tmp_path / "in.jsonl"))
    found = source.divide(size, [])
    assert (len(found) > 1) == (size < 10**6)
    assert await read_parts(source, found) == await read(source)


async def test_a_partition_is_resumed_at_any_of_its_cursors(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(rows_of(400, random.Random(1)))
    source = sources.Csv(path=str(tmp_path / "in.csv"))
    partition = source.divide(4000, [])[1]
    whole = await read(source, partition)
    context = context_of()
    context.partition = partition.what
    reader = await source.open(context)
    chunks = [chunk async for chunk in reader.read()]
    await reader.close()
    for at, chunk in enumerate(chunks):
        context = context_of(chunk.cursor)
        context.partition = partition.what
        reader = await source.open(context)
        rest = [each async for chunk in reader.read() for each in seen_in(chunk)]
        await reader.close()
        assert rest == whole[sum(len(before.records) for before in chunks[: at + 1]) :]


async def test_small_files_come_together_and_what_comes_later_comes_behind(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text('{"n": 1}\n' * 20)
    source = sources.Jsonl(path=str(tmp_path / "*.jsonl"))
    first = source.divide(400, [])
    assert [partition.size for partition in first] == [360, 180]
    assert source.divide(400, first) == []
    with (tmp_path / "c.jsonl").open("a") as file:
        file.write('{"n": 2}\n')
    (tmp_path / "d.jsonl").write_text('{"n": 3}\n')
    further = source.divide(400, first)
    assert [record for record, _ in await read_parts(source, further)] == [{"n": 2}, {"n": 3}]
    assert (await read(source, further[0]))[0][1] == f"{tmp_path}/c.jsonl:21 (byte 180)"


async def test_a_compressed_file_is_one_partition(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"n": 1}\n' * 1000))
    source = sources.Jsonl(path=str(tmp_path / "in.jsonl.gz"))
    found = source.divide(10, [])
    assert len(found) == 1
    assert await read_parts(source, found) == await read(source)
    assert source.divide(10, found) == []


def test_what_has_no_end_or_can_be_read_only_once_is_indivisible() -> None:
    assert "followed" in (sources.Jsonl(path="in.jsonl", follow=True).indivisible() or "")
    assert "a pipe" in (sources.Jsonl(path="-").indivisible() or "")
    assert sources.Jsonl(path="in.jsonl").indivisible() is None
