import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.errors import RecordErrors
from pipeline.stage import Resume, SinkContext
from stages.sinks import Stdout
from stages.sinks.stdout import StdoutWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # the test has closed it


def batch(*records: Any) -> Batch:
    return Batch(list(records), "feed")


async def test_each_record_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    writer = await Stdout().open(SinkContext("out", "test", SystemClock()))
    await writer.write(batch({"n": 1}, {"s": "é\n"}))
    await writer.write(batch())
    await writer.close()

    assert capfd.readouterr().out == '{"n":1}\n{"s":"é\\n"}\n'


async def test_it_writes_to_what_stands_in_for_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    writer = await Stdout().open(SinkContext("out", "test", SystemClock()))
    await writer.write(batch({"s": "é"}))

    assert capsys.readouterr().out == '{"s":"é"}\n'


async def test_records_that_json_cannot_hold_are_named_and_nothing_is_written(pipe: tuple[int, int]) -> None:
    with pytest.raises(RecordErrors) as caught:
        await StdoutWriter(pipe[1]).write(batch({"n": 1}, {"n": float("nan")}, {"n": "\ud800"}))

    os.close(pipe[1])
    assert list(caught.value.errors) == [1, 2]
    assert os.read(pipe[0], 100) == b""


async def test_a_slow_reader_makes_the_write_wait_and_not_the_loop(pipe: tuple[int, int]) -> None:
    records = [{"n": number, "s": "x" * 100} for number in range(5000)]
    read = b""

    async def reader() -> None:
        nonlocal read
        while read.count(b"\n") < len(records):
            await anyio.wait_readable(pipe[0])
            read += os.read(pipe[0], 10_000)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(reader)
            await StdoutWriter(pipe[1]).write(batch(*records))

    assert [json.loads(line) for line in read.splitlines()] == records


async def test_a_cancelled_write_completes_its_torn_line_before_the_next(pipe: tuple[int, int]) -> None:
    writer = StdoutWriter(pipe[1])
    for _ in range(3):
        with anyio.move_on_after(0.005) as scope:
            await writer.write(batch(*({"n": number, "s": "x" * 999} for number in range(100))))
        assert scope.cancelled_caught
    read = b""

    async def reader() -> None:
        nonlocal read
        while not read.endswith(b'{"n":"last"}\n'):
            await anyio.wait_readable(pipe[0])
            read += os.read(pipe[0], 10_000)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(reader)
            await writer.write(batch({"n": "last"}))

    numbers = [json.loads(line)["n"] for line in read.splitlines()]
    assert numbers == [*range(len(numbers) - 1), "last"]
    assert len(numbers) > 10


async def test_a_closed_pipe_is_said_as_such(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])

    with pytest.raises(BrokenPipeError):
        await StdoutWriter(pipe[1]).write(batch({"n": 1}))


async def test_a_file_takes_a_batch_in_one_piece(tmp_path: Path) -> None:
    records = [{"n": number} for number in range(10_000)]
    descriptor = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    try:
        await StdoutWriter(descriptor).write(batch(*records))
    finally:
        os.close(descriptor)

    assert [json.loads(line) for line in lines_of(tmp_path / "out")] == records


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_real_pipe_gets_all_of_it() -> None:
    code = """
import asyncio
from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.stage import SinkContext
from stages.sinks import Stdout

async def main():
    writer = await Stdout().open(SinkContext("out", "test", SystemClock()))
    for number in range(50):
        await writer.write(Batch([{"n": number, "s": "y" * 1000}] * 100, "feed"))

print("first")
asyncio.run(main())
"""
    root = str(Path(__file__).parents[3])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        timeout=20,
        check=True,
        capture_output=True,
    )

    lines = ended.stdout.splitlines()
    assert lines[0] == b"first"
    assert [json.loads(line)["n"] for line in lines[1:]] == [number for number in range(50) for _ in range(100)]


def test_nothing_of_it_lasts() -> None:
    assert not Stdout().durable()
    assert Stdout().resumes() is Resume.NONE
