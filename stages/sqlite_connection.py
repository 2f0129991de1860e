"""An SQLite database as stages use it: one connection with a thread of its own, a unit of work at a time."""

import asyncio
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from pipeline.errors import ConfigError, StageError, StateError, StorageError, Unavailable
from pipeline.unsynced import close_as_it_is
from stages.pace import BRIEF, Pace
from stages.sqlite_log import WriteAheadLog

__all__ = ("Lengthy", "SqliteConnection", "quoted", "translated")

T = TypeVar("T")

_BUSY_SECONDS = 5.0
# A transaction waits as long, but in short turns: who is cancelled need not wait for somebody else's lock.
_BUSY_TURN = 0.1
_BUSY_TURNS = 50
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_CLOSED_TO_US = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_UNSYNCED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
_STORAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}


class Lengthy(Exception):
    """Raised by work in the thread of the loop that would take long, to be begun anew in the connection's thread."""


class _AbandonedError(Exception):
    """Raised in the thread, to roll back a transaction that nobody waits for any more."""


class SqliteConnection:
    """A connection to an SQLite file. A unit of work is never left half done: whoever is cancelled waits for its end.

    ``who`` begins the text of every error. Units run one after another, in the order in which they were asked for.

    What may wait is done in the connection's own thread: for the disk, for the lock, for a table that is rebuilt. To
    hand a unit over and to take back what it returned costs as much as some hundred rows, though, and the more the
    busier the loop is. So a transaction that should be brief by the last ones is done in the thread of the loop: with a
    log (see `keep_log`) it writes to the system's memory only, and it waits for nobody's lock.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._patience = _BUSY_SECONDS
        self._broken = False
        self._unsynced: str | None = None
        """What a sync failed with: another one may succeed though what the first was for is gone, so none follows."""
        self._queued = 0
        """Units that were handed to the thread and have not ended."""
        self._log: WriteAheadLog | None = None
        self._pace = Pace()
        self._held_up = 0.0
        """Seconds that units held up the loop in this turn of it."""

    async def open(self, path: str, mode: str) -> None:
        """Open the file; ``mode`` is ``ro`` (read only), ``rw`` (it has to exist) or ``rwc`` (made if missing).

        With ``memory`` it is an empty database that is nowhere; ``still`` is read only, of a file that nobody has open,
        and makes no files beside it. A second call opens another one in its stead.

        :raises ConfigError: when it can't be opened.
        :raises StateError: when it is not an SQLite database, or a damaged one.
        """
        await self._run(lambda abandoned: self._connect(path, mode), opening=True)

    async def keep_log(self) -> None:
        """Have the database keep a write-ahead log: a commit is safe when the process dies, a durable one always.

        The log is brought into the database in the connection's thread, once it is 4 MiB long.

        :raises ConfigError: when there can be none.
        """
        await self._run(lambda abandoned: self._keep_log(self._opened), opening=True)

    async def read(self, work: Callable[[sqlite3.Connection], T], *, opening: bool = False) -> T:
        """Return what work that changes nothing returns; ``opening``: a damaged file is an error of the state."""
        return await self._run(lambda abandoned: self._read(work), opening=opening)

    async def transact(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        opening: bool = False,
        durable: bool = False,
        brief: Callable[[sqlite3.Connection], T] | None = None,
        size: int | None = None,
    ) -> T:
        """Return what work returns that was done in one transaction, committed; ``durable``: with all earlier ones.

        ``brief`` is the same work for the thread of the loop; it raises `Lengthy` where it would take long. Which of
        them is done goes by ``size``, that the time grows with, and by how long the last one with a size took.

        When it raises or is cancelled, nothing of it stays. A cancellation that comes after the commit does not undo
        it: then this returns, and the caller is cancelled at its next wait.
        """
        if brief is not None and size is not None and self._is_brief(size):
            try:
                return self._transact_here(brief, size)
            except Lengthy:
                pass  # nothing of it stayed
        transact = self._transact_durably if durable else self._transact
        return await self._run(lambda abandoned: transact(work, abandoned, size), opening=opening, commits=True)

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
                raise self._told(error, opening=opening) from error

        done = asyncio.wrap_future(self._thread.submit(work))
        self._queued += 1
        # Before whoever waits for it goes on, who may ask for the next unit at once.
        done.add_done_callback(self._ended_in_thread)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            abandoned.set()
            await _ended(done)
            if done.exception() is not None or not commits:
                raise
            _cancel_again()
            return done.result()

    def _ended_in_thread(self, done: asyncio.Future[Any]) -> None:
        self._queued -= 1

    def _told(self, error: sqlite3.Error, *, opening: bool = False) -> Exception:
        told = translated(error, self._who, opening=opening)
        self._broken = self._broken or isinstance(told, StorageError)
        if getattr(error, "sqlite_errorcode", None) in _UNSYNCED:
            self._unsynced = str(told)
        return told

    # --- in the thread of the loop ---

    def _is_brief(self, size: int) -> bool:
        """Tell whether a transaction would overtake none, and hold up the loop for no longer than is fair."""
        # None overtakes what is under way in the thread. A log that is due is synced, and so is its new beginning.
        if self._queued or self._log is None or self._unsynced is not None:
            return False
        if self._held_up + self._pace.seconds(size) > BRIEF:
            return False
        return not self._log.is_full()

    def _transact_here(self, work: Callable[[sqlite3.Connection], T], size: int) -> T:
        connection = self._opened
        started = time.monotonic()
        try:
            self._begin_here(connection)
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
        except sqlite3.Error as error:
            raise self._told(error) from error
        finally:
            self._held_up_for(size, time.monotonic() - started)
        return result

    def _begin_here(self, connection: sqlite3.Connection) -> None:
        self._wait_for_lock(connection, 0)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise Lengthy from error
            raise

    def _held_up_for(self, size: int, seconds: float) -> None:
        self._pace.took(size, seconds)
        if not self._held_up:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._held_up += seconds

    def _begin_turn(self) -> None:
        self._held_up = 0.0

    # --- in the connection's thread ---

    def _connect(self, path: str, mode: str) -> None:
        if self._connection is not None:
            self._connection.close()
        self._log = None
        self._patience = _BUSY_SECONDS
        try:
            self._connection = _connected(path, mode)
        except sqlite3.OperationalError as error:
            if mode != "ro" or error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            # A writer was killed within a transaction: whoever opens the file next takes back what it left half done.
            _connected(path, "rw").close()
            self._connection = _connected(path, mode)

    def _keep_log(self, connection: sqlite3.Connection) -> None:
        # Builds of SQLite differ in their defaults.
        connection.execute("PRAGMA synchronous = FULL")
        self._log = WriteAheadLog.of(connection, self._who)
        # A commit is safe when the process dies; the disk is waited for in those that are to be durable.
        connection.execute("PRAGMA synchronous = NORMAL")

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._wait_for_lock(self._opened, _BUSY_SECONDS)
        return work(self._opened)

    def _transact(self, work: Callable[[sqlite3.Connection], T], abandoned: threading.Event, size: int | None) -> T:
        connection = self._opened
        if self._unsynced is not None:
            raise StorageError(self._unsynced)
        self._wait_for_lock(connection, _BUSY_TURN)
        if self._log is not None and self._log.is_full():
            # Before the transaction, which then begins the log anew: a failure is known while nothing is done yet.
            self._log.bring_in(connection)
        _begin(connection, abandoned)
        started = time.thread_time()
        try:
            result = work(connection)
            if abandoned.is_set():
                raise _AbandonedError
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        if size is not None:
            self._pace.took_elsewhere(size, time.thread_time() - started)
        return result

    def _transact_durably(
        self, work: Callable[[sqlite3.Connection], T], abandoned: threading.Event, size: int | None
    ) -> T:
        # This one commit waits until the whole log is on the disk.
        self._opened.execute("PRAGMA synchronous = FULL")
        try:
            return self._transact(work, abandoned, size)
        finally:
            self._opened.execute("PRAGMA synchronous = NORMAL")

    # --- in either of them ---

    def _wait_for_lock(self, connection: sqlite3.Connection, seconds: float) -> None:
        if self._patience != seconds:
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            self._patience = seconds


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
    # Used by one thread at a time, of which each sees what the other did: units are handed over by a queue.
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Nothing is read by connecting: only this finds out whether the file is a database.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in _BUSY


def _begin(connection: sqlite3.Connection, abandoned: threading.Event) -> None:
    for left in reversed(range(_BUSY_TURNS)):
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or abandoned.is_set() or not left:
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
