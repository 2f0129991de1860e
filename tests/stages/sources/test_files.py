"""Which files are read, in which order, and what is said of those that can't be."""

import gzip
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from pipeline.errors import ConfigError, StageError, StateError
from pipeline.stage import Progress
from stages.sources.csv import Csv
from stages.sources.file_reader import FileReader
from stages.sources.jsonl import Jsonl
from stages.sources.lines import Lines
from tests.stages.sources.reading import (
    check_resumes,
    context_of,
    read_chunks,
    read_in_pieces,
    read_records,
    read_seen,
    seen_in,
    write,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_glob_is_read_in_the_order_of_names_and_a_list_in_its_own(tmp_path: Path) -> None:
    b, a, c = (write(tmp_path, name, f'"{name}"\n') for name in ("b.jsonl", "a.jsonl", "c.jsonl"))
    (tmp_path / "d.jsonl").mkdir()
    assert await read_records(Jsonl(path=str(tmp_path / "*.jsonl"))) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert await read_records(Jsonl(path=[c, a, c, b])) == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert await read_records(Jsonl(path=[c, str(tmp_path / "?.jsonl")])) == ["c.jsonl", "a.jsonl", "b.jsonl"]


async def test_a_name_that_looks_like_a_glob_is_itself_when_it_exists(tmp_path: Path) -> None:
    path = write(tmp_path, "in[1].jsonl", "1\n")
    write(tmp_path, "in1.jsonl", "2\n")
    assert await read_records(Jsonl(path=path)) == [1]


async def test_every_cursor_of_many_files_resumes_with_the_same_records_at_the_same_places(tmp_path: Path) -> None:
    for number, text in enumerate(("a\n1\n2", "", "a,b\n3,4\n5\n6,7\n", "a\n", "c\n8\n9\n\n\n")):
        write(tmp_path, f"{number}.csv", text)
    source = Csv(path=str(tmp_path / "*.csv"))
    seen = await check_resumes(source, 5, 2)
    good: list[Any] = [record for record, _ in seen if isinstance(record, dict)]
    assert good == [{"a": "1"}, {"a": "2"}, {"a": "3", "b": "4"}, {"a": "6", "b": "7"}, {"c": "8"}, {"c": "9"}]
    assert [place.rsplit("/")[-1] for _, place in seen][-2:] == ["4.csv:2 (byte 2)", "4.csv:3 (byte 4)"]


async def test_files_that_come_later_come_behind_and_files_read_to_their_ends_may_vanish(tmp_path: Path) -> None:
    for name in ("b", "d"):
        write(tmp_path, name, f'"{name}1"\n"{name}2"\n')
    source = Jsonl(path=str(tmp_path / "*"))
    first, second = await read_chunks(source)
    write(tmp_path, "a", '"a1"\n')
    assert await read_records(source, first.cursor) == ["d1", "d2", "a1"]
    (tmp_path / "b").unlink()
    assert await read_records(source, first.cursor) == ["d1", "d2", "a1"]
    (tmp_path / "d").unlink()
    assert await read_records(source, second.cursor) == ["a1"]


async def test_a_file_that_was_not_read_to_its_end_may_not_vanish(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, name, "1\n2\n3\n" * 100)
    source = Jsonl(path=str(tmp_path / "*"))
    cursor = (await read_in_pieces(source, 2, 1))[0].cursor
    (tmp_path / "c").unlink()
    with pytest.raises(StateError, match=r"stage 'in': .*c' is gone, and was not read yet"):
        await read_chunks(source, cursor)
    write(tmp_path, "c", "")
    (tmp_path / "a").unlink()
    with pytest.raises(StateError, match="a' is gone, and was not read to its end"):
        await read_chunks(source, cursor)


async def test_what_cannot_be_read_is_an_error_of_one_line_at_open(tmp_path: Path) -> None:
    cases = {
        "none.jsonl": "no file matches",
        "*.none": "no file matches",
        "": "is a directory",
        "in\0.jsonl": "path: expected a file",
    }
    for name, text in cases.items():
        with pytest.raises(ConfigError, match=text) as caught:
            await Jsonl(path=str(tmp_path / name) if name else str(tmp_path)).open(context_of())
        assert str(caught.value).startswith("stage 'in': ") and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no file matches"):
        await Jsonl(path=[write(tmp_path, "here", "1\n"), str(tmp_path / "gone")]).open(context_of())


async def test_a_file_that_may_not_be_read_is_an_error_at_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", denied)  # root may read everything
    with pytest.raises(ConfigError, match=r"can't open .*: Permission denied"):
        await read_chunks(Jsonl(path=write(tmp_path, "in.jsonl", "1\n")))


def test_keys_that_make_no_sense_are_problems() -> None:
    assert [key for key, _ in Jsonl(path="").problems()] == ["path"]
    assert [key for key, _ in Jsonl(path=[]).problems()] == ["path"]
    assert [key for key, _ in Jsonl(path="-", follow=True).problems()] == ["follow"]
    assert [key for key, _ in Jsonl(path="a.gz", follow=True).problems()] == ["follow"]
    assert [key for key, _ in Jsonl(path="a", compression="zstd", follow=True).problems()] == ["follow"]
    assert list(Jsonl(path="a", follow=True).problems()) == []


def test_the_identity_holds_what_changes_the_meaning_of_a_cursor(tmp_path: Path) -> None:
    assert Jsonl(path="a").identity() == {"path": "a", "encoding": "utf-8", "format": "jsonl"}
    assert Lines(path="a").identity() != Jsonl(path="a").identity()
    assert Csv(path="a").identity() != Csv(path="a", delimiter=";").identity()
    assert Csv(path="a").identity() != Csv(path="a", header=False).identity()
    assert Csv(path="a").identity() == Csv(path="a", types={"x": "int"}, encoding="UTF8").identity()


async def test_progress_counts_the_bytes_of_the_files_themselves(tmp_path: Path) -> None:
    write(tmp_path, "a", "1\n" * 10)
    write(tmp_path, "b", "2\n" * 20)
    reader = await Jsonl(path=str(tmp_path / "*")).open(context_of())
    seen = [reader.progress() async for _ in reader.read()]
    assert seen == [Progress(20, 60, "bytes"), Progress(60, 60, "bytes")]
    await reader.close()


async def test_chunks_are_of_about_256_records_and_at_most_128_kib(tmp_path: Path) -> None:
    short = await read_chunks(Jsonl(path=write(tmp_path, "a", b'{"a": 12345}\n' * 20_000)))
    assert {200 < len(chunk.records) <= 272 for chunk in short[5:-1]} == {True}
    wide = await read_chunks(
        Jsonl(path=write(tmp_path, "b", b'"' + b"x" * 3000 + b'"\n' + (b'"' + b"y" * 3000 + b'"\n') * 500))
    )
    assert max(chunk.size for chunk in wide) <= 128 * 1024 + 1


async def test_a_fifo_is_read_as_it_comes_and_does_not_replay(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    source = Jsonl(path=path)
    assert not source.replays() and Jsonl(path=write(tmp_path, "a", "")).replays()
    reader = await source.open(context_of())
    go_on = threading.Event()

    def feed() -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(b'"first"\n"par')
            go_on.wait(10)
            file.write(b'tial"\nlast')

    feeder = threading.Thread(target=feed)
    feeder.start()
    chunks = reader.read()
    with anyio.fail_after(10):
        assert [seen for seen, _ in seen_in(await anext(chunks))] == ["first"]
        go_on.set()
        rest = [seen for chunk in [c async for c in chunks] for seen, _ in seen_in(chunk)]
    assert rest[0] == "partial" and rest[1][0] == "bad"
    assert reader.progress() == Progress(22, None, "bytes")
    await reader.close()
    feeder.join()


async def test_a_read_that_was_cancelled_loses_nothing_of_a_pipe(tmp_path: Path) -> None:
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = await Lines(path=path).open(context_of())
    with anyio.move_on_after(0.01):
        await anext(reader.read())
    await anyio.Path(path).write_bytes(b"one\ntwo\n")
    with anyio.fail_after(10):
        assert [s for chunk in [c async for c in reader.read()] for s, _ in seen_in(chunk)] == [
            {"line": "one"},
            {"line": "two"},
        ]
    await reader.close()


@pytest.mark.parametrize("suffix", ["", ".gz"])
async def test_a_reader_that_is_cancelled_anywhere_goes_on_without_loss_or_repetition(
    tmp_path: Path, suffix: str
) -> None:
    for name in "abc":
        text = b"n,x\n" + b"".join(b'%s%d,"y\nz"\n' % (name.encode(), n) for n in range(40))
        write(tmp_path, f"{name}.csv{suffix}", gzip.compress(text) if suffix else text)
    context = context_of()
    source = Csv(path=str(tmp_path / f"*{suffix}"))
    reader = FileReader(source.paths(), source.format(context), context, "auto", block=50, records=5)
    await reader.open()
    seen: list[str] = []

    async def collect() -> None:
        async for chunk in reader.read():
            seen.extend(record["n"] for record in chunk.records)

    chance = random.Random(1)
    ended = False
    while not ended:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            for _ in range(chance.randrange(1, 60)):
                await anyio.lowlevel.checkpoint()
            ended = seen[-1:] == ["c39"]
            tasks.cancel_scope.cancel()
    assert seen == [f"{name}{n}" for name in "abc" for n in range(40)]
    await reader.close()


STDIN = """
import anyio
from stages.sources.jsonl import Jsonl
from tests.stages.sources.reading import context_of
async def main():
    reader = await Jsonl(path="-").open(context_of({cursor}))
    async for chunk in reader.read():
        print(chunk.records, flush=True)
        if {leave}: break
anyio.run(main)
"""


async def test_standard_input_is_read_from_where_it_is_whatever_the_cursor() -> None:
    code = STDIN.format(cursor={"offset": 99, "files": ["-"], "index": 0, "done": False}, leave=False)
    done = await anyio.run_process([sys.executable, "-c", code], input=b"1\n2\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"[1, 2]\n", b"", 0)


def test_a_process_ends_while_its_standard_input_is_silent() -> None:
    code = STDIN.format(cursor=None, leave=True)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"1\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"[1]\n"
    assert child.wait(10) == 0  # its input is still open
    child.stdin.close()
    child.stdout.close()


async def test_a_failed_open_names_the_stage_and_a_failed_read_too(tmp_path: Path) -> None:
    path = write(tmp_path, "in.gz", b"\x1f\x8b")
    with pytest.raises(StageError, match=r"^stage 'in': "):
        await read_seen(Jsonl(path=path))
