"""A database whose storage failed is closed without another sync: its log stays as it is."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.settle.database import Database
from pipeline.unsynced import close_as_it_is
from stages.sqlite_connection import SqliteConnection

pytestmark = pytest.mark.anyio


def logged(path: Path) -> sqlite3.Connection:
    """Return a connection to a database whose log holds a row."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (n)")
    connection.execute("INSERT INTO t VALUES (1)")
    return connection


def fail(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (2)")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


def found(path: Path) -> tuple[bool, list[tuple[int]]]:
    """Return whether there is a log, and what the database holds with it."""
    has_log = path.with_name(f"{path.name}-wal").exists()
    with closing(sqlite3.connect(path)) as connection:
        return has_log, connection.execute("SELECT n FROM t").fetchall()


def test_the_log_stays_where_closing_would_bring_it_in(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = logged(path)
    before = path.read_bytes()
    close_as_it_is(connection)
    assert path.read_bytes() == before
    assert found(path) == (True, [(1,)])
    logged(path).close()
    assert found(path) == (False, [(1,), (1,)])


def test_what_is_nowhere_or_closed_already_is_closed(tmp_path: Path) -> None:
    for connection in (sqlite3.connect(":memory:"), logged(tmp_path / "x.db")):
        close_as_it_is(connection)
        close_as_it_is(connection)
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


async def test_the_state_is_closed_so_after_its_storage_failed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    logged(path).close()
    database = await Database.open(path)
    with pytest.raises(StorageError):
        await database.run(fail)
    await database.close()
    assert found(path) == (True, [(1,), (2,)])


async def test_a_stages_database_is_closed_so_after_its_storage_failed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    logged(path).close()
    connection = SqliteConnection("stage 'x'")
    await connection.open(str(path), "rw")
    with pytest.raises(StorageError):
        await connection.read(fail)
    await connection.close()
    assert found(path) == (True, [(1,), (2,)])
