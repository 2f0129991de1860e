"""A SQLite file on a thread of its own, where each piece of work runs as one unit that no cancellation can divide."""

import errno
import os
import sqlite3
from asyncio import Future
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
from anyio import CancelScope

from pipeline.errors import LockedError, PipelineError, StateError, StorageError
from pipeline.settle.json_text import one_line
from pipeline.unsynced import close_as_it_is

__all__ = ("WAYS_OUT", "Database", "Work", "explained", "placed", "transaction", "trial")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

WAYS_OUT = "restore it from a backup, or move it aside to begin anew"
"""What a user can do about a state file that is of no use, for the end of an error."""
_BUSY_SECONDS = 5.0
"""How long a writer waits for somebody who looks into the file with another program."""
_STORAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}
_UNOPENED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}
_DESCRIPTORS = 8
"""More than an open state file needs: itself, its -wal, -shm and -journal, and its folder to sync."""
_STORAGE_ERRNO = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


class Database(aiosqlite.Connection):
    """An open SQLite file. Units run one after the other in the order in which they were asked for.

    A unit is a function that gets the connection, on the database's thread; it runs to its end even if its caller is
    cancelled, so a transaction is never left open and nothing comes between its statements. The thread is a daemon:
    a program that dies without closing must not hang, and for SQLite that is no more than a crash.
    """

    def __init__(self, path: Path, *, options: str = "mode=rw") -> None:
        super().__init__(self._open, 64)
        self._thread.daemon = True
        self._path = path
        self._options = options
        self._raw: sqlite3.Connection | None = None
        self._broken = False

    @classmethod
    async def open(cls, path: Path, *, options: str = "mode=rw") -> "Database":
        """Open a file that exists; ``options`` are those of SQLite's file URIs.

        :raises PipelineError: as `explained` says.
        """
        database = cls(path, options=options)
        try:
            with CancelScope(shield=True):
                await database
        except (sqlite3.Error, OSError) as error:
            raise explained(error, path) from error
        return database

    async def run(self, unit: Work[T]) -> T:
        """Run a unit to its end and return what it returns.

        :raises PipelineError: as `explained` says.
        """
        result: Any = None
        try:
            with CancelScope(shield=True):
                result = await cast(Any, self)._execute(partial(self._on_thread, unit))
        except (sqlite3.Error, OSError) as error:
            told = explained(error, self._path)
            self._broken = self._broken or isinstance(told, StorageError)
            raise told from error
        except StateError as error:
            raise placed(error, self._path) from error
        return cast(T, result)

    async def close(self) -> None:
        """Close the file and end the thread; not cut short by a cancellation."""
        with CancelScope(shield=True):
            if self._broken and self._raw is not None:
                await cast(Any, self)._execute(partial(close_as_it_is, self._raw))
            await super().close()

    def stop(self) -> "Future[Any] | None":
        """Close the file and end the thread without waiting for it."""
        # A connection that was made while its opener was cancelled is known to nobody else.
        cast(Any, self)._tx.put_nowait((None, self._close_raw))
        return cast("Future[Any] | None", cast(Any, super()).stop())

    def _open(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?{self._options}"
        self._raw = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        return self._raw

    def _close_raw(self) -> None:
        if self._raw is not None:
            self._raw.close()

    def _on_thread(self, unit: Work[T]) -> T:
        return unit(self._conn)


def transaction(unit: Work[T]) -> Work[T]:
    """Return the unit as one transaction: what it did is there whole or not at all; its first error is kept."""

    def whole(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = unit(connection)
            connection.execute("COMMIT")
        except BaseException:
            # After a full disk or a failed write SQLite has rolled back by itself.
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        return result

    return whole


def trial(unit: Work[T]) -> Work[T]:
    """Return the unit as a transaction that is always rolled back: what it would do, without doing it."""

    def tried(connection: sqlite3.Connection) -> T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            return unit(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    return tried


def placed(error: StateError, path: Path) -> StateError:
    """Return the error with the file's name in front."""
    return error if str(error).startswith(str(path)) else StateError(f"{path}: {error}")


def explained(error: sqlite3.Error | OSError, path: Path) -> PipelineError:
    """Return our error for one of SQLite or of the system.

    `StorageError` for a full disk, a failed write or too many open files, `StateError` for a file that is corrupt or
    can't be opened, `LockedError` when another program holds the database itself.
    """
    if isinstance(error, OSError):
        if error.errno in _TOO_MANY_OPEN:
            return _too_many_open(path)
        if error.errno in _STORAGE_ERRNO:
            return StorageError(f"{path}: {error.strerror or error}; nothing after the last checkpoint is saved")
        return StateError(f"{path}: the state file can't be opened: {error.strerror or error}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    cause = one_line(error)
    if code in _UNOPENED and _lacks_descriptors():
        return _too_many_open(path)
    if code in _STORAGE:
        return StorageError(f"{path}: {cause}; nothing after the last checkpoint is saved")
    if code in _CORRUPT:
        return StateError(f"{path}: the state file is corrupt ({cause}); {WAYS_OUT}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockedError(f"{path}: another program holds a lock on the database ({cause}); close it")
    return StateError(f"{path}: the state file can't be used: {cause}")


def _too_many_open(path: Path) -> StorageError:
    way = "raise the limit (`ulimit -n`) or have fewer files open at a time"
    return StorageError(f"{path}: too many open files to use the state file; {way}")


def _lacks_descriptors() -> bool:
    """Tell whether too few files can be opened for a database, which SQLite does not tell from a missing file."""
    with ExitStack() as stack:
        try:
            for _ in range(_DESCRIPTORS):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return error.errno in _TOO_MANY_OPEN
    return False
