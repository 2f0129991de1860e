"""Files that are read as they grow: partial lines, rotation, truncation, and what a restart finds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.stage import Chunk
from stages.sources.csv import Csv
from stages.sources.files import FileSource
from stages.sources.lines import Lines
from tests.stages.sources.reading import context_of, seen_in

pytestmark = pytest.mark.anyio

Act = Callable[[], Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Stopped(Exception):
    """The script is over."""


class Script:
    """A clock whose every sleep is the moment for one act; then some idle ones, then the end."""

    def __init__(self, *acts: Act | None) -> None:
        self.acts = [*acts, None, None, None]
        self.slept: list[float] = []

    def now(self) -> float:
        return sum(self.slept)

    def wall(self) -> float:
        return sum(self.slept)

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.acts:
            raise Stopped
        act = self.acts.pop(0)
        if act is not None:
            act()


class Log:
    """A file that is written to by somebody else."""

    def __init__(self, folder: Path, name: str = "app.log") -> None:
        self.path = folder / name

    def add(self, text: str) -> Act:
        return lambda: self.append(text)

    def append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rename(self, name: str) -> Act:
        return lambda: self.path.rename(self.path.with_name(name))

    def truncate(self, text: str = "") -> Act:
        return lambda: self.path.write_text(text)  # the same inode, as copytruncate does


async def follow(
    source: FileSource, script: Script, cursor: Any = None, warnings: list[str] | None = None
) -> list[Chunk]:
    chunks: list[Chunk] = []
    reader = await source.open(context_of(cursor, clock=script, warnings=warnings))
    with pytest.raises(Stopped):
        async for chunk in reader.read():
            chunks.append(chunk)  # noqa: PERF401 - what came before the end counts
    await reader.close()
    return chunks


def texts(chunks: list[Chunk]) -> list[str]:
    return [record["line"] for chunk in chunks for record, _ in seen_in(chunk)]


def source_of(log: Log) -> Lines:
    return Lines(path=str(log.path), follow=True)


async def test_growth_is_read_and_a_partial_last_line_waits_for_its_newline(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\ntw")
    script = Script(log.add("o"), None, log.add("\nthree\nfo"))
    chunks = await follow(source_of(log), script)
    assert [texts([chunk]) for chunk in chunks] == [["one"], ["two", "three"]]
    assert chunks[1].position is not None and chunks[1].position(1) == f"{log.path}:3 (byte 8)"
    assert set(script.slept) == {0.2}
    assert source_of(log).endless() and source_of(log).replays()


async def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert texts(await follow(source_of(log), Script(None, log.add("one\n"), log.add("two\n")))) == ["one", "two"]


async def test_a_header_that_is_not_complete_is_waited_for(tmp_path: Path) -> None:
    log = Log(tmp_path, "a.csv")
    script = Script(log.add("a,"), log.add('b\n1,"x'), log.add('\ny"\n2,'), log.add("z\n"))
    chunks = await follow(Csv(path=str(log.path), follow=True), script)
    assert [record for chunk in chunks for record in chunk.records] == [{"a": "1", "b": "x\ny"}, {"a": "2", "b": "z"}]


async def test_a_renamed_file_is_read_to_its_end_before_its_successor(tmp_path: Path) -> None:
    log, old = Log(tmp_path), Log(tmp_path, "app.log.1")
    log.append("one\n")
    script = Script(
        log.add("two\n"),
        log.rename("app.log.1"),
        old.add("three\n"),
        log.add("five\n"),
        old.add("four, cut"),
        None,
        None,
    )
    chunks = await follow(source_of(log), script)
    assert texts(chunks) == ["one", "two", "three", "four, cut", "five"]
    assert chunks[-1].position is not None and chunks[-1].position(0) == f"{log.path}:1 (byte 0)"


async def test_a_truncated_file_is_read_from_its_start_and_that_is_said(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\ntwo\n")
    warnings: list[str] = []
    script = Script(log.truncate(), log.add("three\n"), log.truncate("four, as long as what was before\n"))
    assert texts(await follow(source_of(log), script, warnings=warnings)) == [
        "one",
        "two",
        "three",
        "four, as long as what was before",
    ]
    assert len(warnings) == 2
    assert "after byte 8" in warnings[0] and "number 1" in warnings[0] and "number 2" in warnings[1]


async def test_a_file_rewritten_with_the_same_length_is_noticed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    warnings: list[str] = []
    assert texts(await follow(source_of(log), Script(log.truncate("two\n")), warnings=warnings)) == ["one", "two"]
    assert len(warnings) == 1


async def test_a_restart_goes_on_where_the_cursor_is(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.append("two\n")
    assert texts(await follow(source_of(log), Script(log.add("three\n")), cursor)) == ["two", "three"]


@pytest.mark.parametrize("successor", [None, "new\n", "one\n", "one\ntwo\nnew\n"])
async def test_a_file_rotated_while_nobody_read_is_finished_first(tmp_path: Path, successor: str | None) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.append("two\n")
    log.rename("2026.log")()
    if successor is not None:
        log.append(successor)
    warnings: list[str] = []
    chunks = await follow(source_of(log), Script(), cursor, warnings)
    assert texts(chunks) == ["two", *(successor or "").split()]
    assert len(warnings) == 1 and "2026.log' while nobody read it" in warnings[0]
    # From the cursor in the rotated file too, once it was read to its end.
    script = Script(log.add("newest\n"))
    rest = await follow(source_of(log), script, chunks[0].cursor, [])
    assert texts(rest) == [*(successor or "").split(), "newest"]


async def test_a_renamed_file_with_another_content_by_now_is_not_the_one(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.rename("app.log.1")()
    Log(tmp_path, "app.log.1").truncate("something else\n")()
    log.append("new\n")
    warnings: list[str] = []
    assert texts(await follow(source_of(log), Script(), cursor, warnings)) == ["new"]
    assert len(warnings) == 1 and "not in its folder" in warnings[0]


async def test_a_copy_that_rotation_left_is_finished_before_the_truncated_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.append("two\n")
    shutil.copy(log.path, tmp_path / "app.log.1")
    log.truncate("three\n")()
    assert texts(await follow(source_of(log), Script(), cursor, [])) == ["two", "three"]


async def test_a_file_that_is_nowhere_any_more_is_said_with_the_bytes_missing(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\ntwo, without its end")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.path.unlink()
    log.append("entirely different, and longer than it was\n")
    warnings: list[str] = []
    assert texts(await follow(source_of(log), Script(), cursor, warnings)) == [
        "entirely different, and longer than it was"
    ]
    assert len(warnings) == 1 and "at least 20 bytes behind byte 4 were not read" in warnings[0]


async def test_a_reused_inode_does_not_lend_its_offset_to_another_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\ntwo\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.truncate("eins\nzwei\ndrei\n")()
    assert cursor["inode"][1] == log.path.stat().st_ino
    warnings: list[str] = []
    assert texts(await follow(source_of(log), Script(), cursor, warnings)) == ["eins", "zwei", "drei"]
    assert len(warnings) == 1


async def test_a_file_restored_under_another_inode_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    log.append("two\n")
    shutil.copy(log.path, tmp_path / "copy")
    os.replace(tmp_path / "copy", log.path)
    assert texts(await follow(source_of(log), Script(), cursor)) == ["two"]


async def test_of_a_glob_the_last_file_is_followed_until_a_newer_one_comes(tmp_path: Path) -> None:
    first, second, third = (Log(tmp_path, f"app-{day}.log") for day in (1, 2, 3))
    source = Lines(path=str(tmp_path / "app-*.log"), follow=True)

    def roll() -> None:
        second.append("four\n")
        third.append("five\n")

    script = Script(lambda: first.append("one\n"), second.add("two\n"), None, second.add("three\n"), roll, None, None)
    chunks = await follow(source, script)
    assert texts(chunks) == ["one", "two", "three", "four", "five"]
    rest = [texts(await follow(source, Script(), chunk.cursor)) for chunk in chunks]
    assert rest == [texts(chunks[at + 1 :]) for at in range(len(chunks))]


async def test_a_restart_keeps_counting_lines_and_bytes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("one\n\ntwo\n")
    cursor = (await follow(source_of(log), Script()))[-1].cursor
    chunks = await follow(source_of(log), Script(log.add("three\n")), cursor)
    assert chunks[0].position is not None and chunks[0].position(0) == f"{log.path}:4 (byte 9)"


STEP = st.sampled_from(["add", "part", "rename", "idle", "idle", "restart"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
async def test_no_line_is_lost_or_repeated_over_growth_rotation_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    count = 0
    written: list[str] = []

    def add(end: str = "\n") -> None:
        nonlocal count
        count += 1
        written.append(f"line {count}")
        log.append(f"line {count}{end}")

    def rename() -> None:
        if log.path.exists():
            log.path.rename(log.path.with_name(f"app.log.{count}-{len(written)}"))
            add()

    def finish_part() -> None:
        log.append("\n")

    acts: dict[str, list[Act | None]] = {
        "add": [add],
        "part": [lambda: add(""), finish_part],
        "rename": [rename, None, None, None, None],
        "idle": [None],
    }
    cursor: Any = None
    read: list[str] = []
    for part in " ".join(steps).split("restart"):
        script = Script(*(act for step in part.split() for act in acts[step]))
        chunks = await follow(source_of(log), script, cursor, [])
        read += texts(chunks)
        cursor = chunks[-1].cursor if chunks else cursor
    assert read == written
