"""Which thread does a unit of work, in which order, and what waits for what."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageError, StorageError
from stages.sqlite_connection import Lengthy, SqliteConnection
from stages.sqlite_log import WriteAheadLog

pytestmark = pytest.mark.anyio

BRIEF = 0.2
INSERT = "INSERT INTO t VALUES (?, ?)"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have more be brief, so that it is however busy the machine is."""
    monkeypatch.setattr("stages.pace.BRIEF", BRIEF)
    monkeypatch.setattr("stages.sqlite_connection.BRIEF", BRIEF)


@pytest.fixture
def little_log(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have a log be full after so many bytes."""
    bytes = 256 * 1024
    monkeypatch.setattr("stages.sqlite_log._FULL", bytes)
    return bytes


class Writer:
    """Writes rows in transactions that may be brief, and notes the thread of each."""

    def __init__(self, connection: SqliteConnection) -> None:
        self.connection = connection
        self.here: list[bool] = []
        self.order: list[int] = []
        self._loop = threading.get_ident()

    async def write(
        self,
        number: int,
        before: Callable[[], Any] = lambda: None,
        *,
        padding: int = 1000,
        size: int = 1,
        **keys: Any,
    ) -> None:
        def work(connection: sqlite3.Connection) -> None:
            self.here.append(self.is_loop())
            self.order.append(number)
            before()
            connection.execute(INSERT, (number, b"x" * padding))

        await self.connection.transact(work, brief=None if keys else work, size=size, **keys)

    def is_loop(self) -> bool:
        return threading.get_ident() == self._loop


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[Writer]:
    connection = SqliteConnection("stage 'x'")
    await connection.open(str(path), "rwc")
    await connection.keep_log()
    await connection.transact(lambda opened: opened.execute("CREATE TABLE IF NOT EXISTS t (n, b)"))
    try:
        yield Writer(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def warm(path: Path) -> AsyncGenerator[Writer]:
    """Open a database for which a unit is known to be brief."""
    async with opened(path) as writer:
        await writer.write(0)
        await writer.write(0)
        assert writer.here == [False, True]
        await asyncio.sleep(0)
        writer.here.clear()
        writer.order.clear()
        yield writer


@contextmanager
def locked(path: Path) -> Generator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def numbers(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT n FROM t WHERE n > 0 ORDER BY rowid")]


def log_of(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


async def test_a_transaction_that_is_known_to_be_brief_is_done_in_the_thread_of_the_loop(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(1)
        await writer.write(2)
    assert writer.here == [False, True]
    assert numbers(path) == [1, 2]


async def test_without_a_log_none_is(path: Path) -> None:
    connection = SqliteConnection("stage 'x'")
    await connection.open(str(path), "rwc")
    await connection.transact(lambda opened: opened.execute("CREATE TABLE t (n, b)"))
    writer = Writer(connection)
    for number in range(5):
        await writer.write(number)
    await connection.close()
    assert not any(writer.here)


async def test_one_that_is_too_large_is_done_in_the_thread(path: Path) -> None:
    async with warm(path) as writer:
        await writer.write(1, size=10**9)
    assert writer.here == [False]


async def test_one_that_took_long_keeps_the_next_off_the_loop(path: Path) -> None:
    async with warm(path) as writer:
        await writer.write(1, lambda: time.sleep(1.5 * BRIEF))
        for number in (2, 3):
            await asyncio.sleep(0)
            await writer.write(number)
    assert writer.here == [True, False, True]


async def test_brief_ones_in_a_row_give_the_loop_its_turn(path: Path) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with warm(path) as writer:
        task = asyncio.ensure_future(turn())
        for number in range(1, 9):
            # None of them is long, and none of them waits.
            await writer.write(number, lambda: time.sleep(0.4 * BRIEF))
        task.cancel()
    assert turns >= 2
    assert numbers(path) == list(range(1, 9))


async def test_what_turns_out_to_be_lengthy_is_rolled_back_and_begun_anew_in_the_thread(path: Path) -> None:
    done: list[bool] = []

    def work(connection: sqlite3.Connection) -> None:
        done.append(writer.is_loop())
        connection.execute(INSERT, (1, None))

    def at_first(connection: sqlite3.Connection) -> None:
        work(connection)
        raise Lengthy

    async with warm(path) as writer:
        await writer.connection.transact(work, brief=at_first, size=1)
    assert done == [True, False]
    assert numbers(path) == [1]


async def test_a_lock_that_another_holds_is_waited_for_in_the_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.sqlite_connection._BUSY_TURN", 5.0)
    async with warm(path) as writer:
        with locked(path):
            started = time.monotonic()
            task = asyncio.ensure_future(writer.write(1))
            for _ in range(100):
                await asyncio.sleep(0)
            assert time.monotonic() - started < 2.5
            assert not task.done()
            assert writer.here == []
        await task
    assert writer.here == [False]
    assert numbers(path) == [1]


async def test_none_overtakes_or_meets_what_is_under_way_in_the_thread(path: Path) -> None:
    go_on = threading.Event()
    async with warm(path) as writer:
        tasks = [asyncio.ensure_future(writer.write(1, lambda: go_on.wait(10), durable=True))]
        tasks += [asyncio.ensure_future(writer.write(number)) for number in (2, 3)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        go_on.set()
        await asyncio.wait(tasks)
        await writer.write(4)
    assert writer.order == [1, 2, 3, 4]
    assert writer.here == [False, False, False, True]
    assert numbers(path) == [1, 2, 3, 4]


async def test_what_is_abandoned_in_the_thread_is_not_met_either(path: Path) -> None:
    go_on = threading.Event()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)

    async with warm(path) as writer:
        task = asyncio.ensure_future(writer.write(1, wait, durable=True))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        following = asyncio.ensure_future(writer.write(2))
        await asyncio.sleep(0)
        assert writer.order == [1]
        go_on.set()
        await asyncio.wait([task, following])
        assert task.cancelled()
    assert numbers(path) == [2]


async def test_a_cancellation_that_is_under_way_comes_behind_a_brief_transaction(path: Path) -> None:
    ended: list[str] = []

    async def write() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await writer.write(1)
        ended.append("written")
        await asyncio.sleep(0)
        ended.append("slept")

    async with warm(path) as writer:
        task = asyncio.ensure_future(write())
        await asyncio.wait([task])
        assert task.cancelled()
    assert ended == ["written"]
    assert numbers(path) == [1]


async def test_errors_are_told_as_those_of_the_thread_are_and_leave_nothing(path: Path) -> None:
    def full() -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    def wrong(connection: sqlite3.Connection) -> None:
        connection.execute(INSERT, (1, None))
        connection.execute("SELECT * FROM nowhere")

    async with warm(path) as writer:
        with pytest.raises(StageError, match="stage 'x': no such table: nowhere"):
            await writer.connection.transact(wrong, brief=wrong, size=1)
        await writer.write(2)
        with pytest.raises(StorageError, match="stage 'x': disk I/O error"):
            await writer.write(3, full)
    assert writer.here == [True, True]
    # What the storage failed on is left to whoever opens the file next.
    assert log_of(path) > 0
    assert numbers(path) == [2]


async def test_the_log_is_brought_in_by_the_thread_and_stays_short(path: Path, little_log: int) -> None:
    brought_in: list[bool] = []
    longest = 0
    async with warm(path) as writer:

        def trace(sql: str) -> None:
            if "wal_checkpoint" in sql:
                brought_in.append(writer.is_loop())

        await writer.connection.read(lambda connection: connection.set_trace_callback(trace))
        for number in range(1, 1001):
            await writer.write(number)
            longest = max(longest, log_of(path))
            if number % 10 == 0:
                await asyncio.sleep(0)
    assert len(brought_in) >= 5
    assert not any(brought_in)
    assert sum(writer.here) > 500
    assert longest < little_log + 64 * 1024
    assert numbers(path) == list(range(1, 1001))


async def test_no_commit_brings_the_log_in_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.sqlite_log._FULL", 2**30)
    async with warm(path) as writer:
        for number in range(1, 8):
            await writer.write(number, padding=2**20)
            await asyncio.sleep(0)
        assert log_of(path) > 6 * 2**20
        assert os.stat(path).st_size < 2**16
    assert numbers(path) == list(range(1, 8))


async def test_others_that_write_to_the_log_make_it_long_too(path: Path, little_log: int) -> None:
    async with warm(path) as writer:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA wal_autocheckpoint = 0")
            other.execute(INSERT, (-1, b"x" * 2 * little_log))
            assert log_of(path) > 2 * little_log
            await writer.write(1)
        assert log_of(path) <= little_log
    assert writer.here == [False]


async def test_a_log_that_a_reader_needs_is_not_looked_at_in_each_transaction(path: Path, little_log: int) -> None:
    async with warm(path) as writer:
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchone()
            for number in range(1, 301):
                await writer.write(number)
                await asyncio.sleep(0)
            assert log_of(path) > 2 * little_log
            assert sum(writer.here) > 150
        # Once it is gone the log is brought in and cut, before long.
        for number in range(301, 601):
            await writer.write(number)
            await asyncio.sleep(0)
        assert log_of(path) < little_log + 64 * 1024
    assert numbers(path) == list(range(1, 601))


async def test_a_log_that_can_not_be_brought_in_is_a_storage_error_before_anything_is_done(
    path: Path, little_log: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(log: WriteAheadLog, connection: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    monkeypatch.setattr(WriteAheadLog, "bring_in", fail)
    async with warm(path) as writer:
        with pytest.raises(StorageError):
            for number in range(1, 1001):
                await writer.write(number)
        last = max(writer.order)
        # Another sync could succeed though what the first was for is gone: none is tried.
        with pytest.raises(StorageError, match="stage 'x': disk I/O error"):
            await writer.write(1001, durable=True)
        with pytest.raises(StorageError, match="stage 'x': disk I/O error"):
            await writer.write(1002)
        assert max(writer.order) == last < 1000
    assert numbers(path) == list(range(1, last + 1))
