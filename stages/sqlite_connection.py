"""An SQLite database as stages use it: one connection, used from one thread of its own, a unit of work at a time."""

import asyncio
import math
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from pipeline.errors import ConfigError, StageError, StateError, StorageError, Unavailable
from pipeline.unsynced import close_as_it_is

__all__ = ("SqliteConnection", "quoted", "translated")

T = TypeVar("T")

_BUSY_SECONDS = 5.0
# A transaction waits as long, but in short turns: who is cancelled need not wait for somebody else's lock.
_BUSY_TURN = 0.1
_BUSY_TURNS = 50
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_CLOSED_TO_US = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_STORAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}


class _AbandonedError(Exception):
    """Raised in the thread, to roll back a transaction that nobody waits for any more."""


class SqliteConnection:
    """A connection to an SQLite file. A unit of work is never left half done: whoever is cancelled waits for its end.

    ``who`` begins the text of every error. Units run one after another, in the order in which they were asked for.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._in_turns = False
        self._broken = False

    async def open(self, path: str, mode: str) -> None:
        """Open the file; ``mode`` is ``ro`` (read only), ``rw`` (it has to exist) or ``rwc`` (made if missing).

        With ``memory`` it is an empty database that is nowhere; ``still`` is read only, of a file that nobody has open,
        and makes no files beside it. A second call opens another one in its stead.

        :raises ConfigError: when it can't be opened.
        :raises StateError: when it is not an SQLite database, or a damaged one.
        """
        await self._run(lambda abandoned: self._connect(path, mode), opening=True)

    async def read(self, work: Callable[[sqlite3.Connection], T], *, opening: bool = False) -> T:
        """Return what work that changes nothing returns; ``opening``: a damaged file is an error of the state."""
        return await self._run(lambda abandoned: work(self._opened), opening=opening)

    async def transact(
        self, work: Callable[[sqlite3.Connection], T], *, opening: bool = False, durable: bool = False
    ) -> T:
        """Return what work returns that was done in one transaction, committed; ``durable``: with all earlier ones.

        When it raises or is cancelled, nothing of it stays. A cancellation that comes after the commit does not undo
        it: then this returns, and the caller is cancelled at its next wait.
        """
        transact = self._transact_durably if durable else self._transact
        return await self._run(lambda abandoned: transact(work, abandoned), opening=opening, commits=True)

    async def close(self) -> None:
        """Close the connection and end its thread; a second call does nothing."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                close = partial(close_as_it_is, connection) if self._broken else connection.close
                await self._run(lambda abandoned: close())
        finally:
            self._thread.shutdown(wait=False)

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StageError(f"{self._who}: the database is closed")
        return self._connection

    async def _run(self, unit: Callable[[threading.Event], T], *, opening: bool = False, commits: bool = False) -> T:
        abandoned = threading.Event()

        def work() -> T:
            try:
                return unit(abandoned)
            except sqlite3.Error as error:
                told = translated(error, self._who, opening=opening)
                self._broken = self._broken or isinstance(told, StorageError)
                raise told from error

        done = asyncio.wrap_future(self._thread.submit(work))
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            abandoned.set()
            await _ended(done)
            if done.exception() is not None or not commits:
                raise
            _cancel_again()
            return done.result()

    def _connect(self, path: str, mode: str) -> None:
        if self._connection is not None:
            self._connection.close()
        try:
            self._connection = _connected(path, mode)
        except sqlite3.OperationalError as error:
            if mode != "ro" or error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            # A writer was killed within a transaction: whoever opens the file next takes back what it left half done.
            _connected(path, "rw").close()
            self._connection = _connected(path, mode)

    def _transact(self, work: Callable[[sqlite3.Connection], T], abandoned: threading.Event) -> T:
        connection = self._opened
        if not self._in_turns:
            connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_TURN * 1000)}")
            self._in_turns = True
        _begin(connection, abandoned)
        try:
            result = work(connection)
            if abandoned.is_set():
                raise _AbandonedError
            connection.execute("COMMIT")
            return result
        except BaseException:
            _roll_back(connection)
            raise

    def _transact_durably(self, work: Callable[[sqlite3.Connection], T], abandoned: threading.Event) -> T:
        # This one commit waits until the whole log is on the disk.
        self._opened.execute("PRAGMA synchronous = FULL")
        try:
            return self._transact(work, abandoned)
        finally:
            self._opened.execute("PRAGMA synchronous = NORMAL")


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def translated(error: sqlite3.Error, who: str, *, opening: bool = False) -> Exception:
    """Return an error of SQLite as one of ours, by what can be done about it; ``opening``: nothing was written yet."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    text = f"{who}: {error}"
    if code in _BUSY:
        return Unavailable(f"{text}; another process holds its lock")
    if code in _DAMAGED:
        return StateError(f"{text}; restore it, or move it away") if opening else StorageError(text)
    if code in _CLOSED_TO_US:
        return ConfigError(f"{text}; see that the folder exists and its permissions") if opening else StorageError(text)
    return StorageError(text) if code in _STORAGE else StageError(text)


def _connected(path: str, mode: str) -> sqlite3.Connection:
    # As a URI even where no mode is needed: the text ":memory:" or "" as a path would be no file at all.
    uri = f"{Path(path).absolute().as_uri()}?mode={'ro&immutable=1' if mode == 'still' else mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        # Nothing is read by connecting: only this finds out whether the file is a database.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _begin(connection: sqlite3.Connection, abandoned: threading.Event) -> None:
    for left in reversed(range(_BUSY_TURNS)):
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY or abandoned.is_set() or not left:
                raise


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite has rolled back by itself when the disk was full; one more would hide the first error.
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the error that made us roll back says more; the next BEGIN fails if it is still open


async def _ended(done: asyncio.Future[Any]) -> None:
    with anyio.CancelScope(shield=True):
        while not done.done():
            try:
                await asyncio.wait([done])
            except asyncio.CancelledError:
                continue  # of the task itself, which no scope shields from


def _cancel_again() -> None:
    """See that a cancellation that was held up still comes; anyio's own scopes repeat theirs."""
    task = asyncio.current_task()
    if task is not None and task.cancelling() and anyio.current_effective_deadline() != -math.inf:
        task.uncancel()
        task.cancel()
