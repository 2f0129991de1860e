"""The write-ahead log of an SQLite database: how long it is, and when it is brought into the database."""

import os
import sqlite3

from pipeline.errors import ConfigError

__all__ = ("WriteAheadLog",)

_FULL = 4 * 2**20
"""Bytes at which a log is brought in: about what SQLite's own 1,000 pages come to."""


class WriteAheadLog:
    """A log that is brought in (a checkpoint, in SQLite's words) when its owner says so, and not by a commit.

    SQLite does that within whichever commit makes the log long: two syncs and a copy of every page, in a thread that
    may not wait. Its length is read from its file and not counted: others may write to it too.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._full_at = _FULL

    @classmethod
    def of(cls, connection: sqlite3.Connection, who: str) -> "WriteAheadLog":
        """Have a database keep one, and return it.

        :raises ConfigError: when there can be none.
        """
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise ConfigError(f"{who}: no write-ahead log is possible here (mode {mode!r}); choose a local disk")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Whoever begins the log anew cuts its file to this: one that is longer is in use up to its end.
        connection.execute(f"PRAGMA journal_size_limit = {_FULL}")
        path: str = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        return cls(f"{path}-wal")

    def is_full(self) -> bool:
        """Tell whether it should be brought in."""
        return self._length() > self._full_at

    def bring_in(self, connection: sqlite3.Connection) -> None:
        """Copy the log into the database, as far as no reader needs it; the next transaction begins it anew.

        Waits for the disk, and so does the first commit behind it.
        """
        length = self._length()
        _, pages, brought_in = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        # A reader keeps it from being begun anew: then it is tried again when it has grown by as much.
        self._full_at = _FULL if pages == brought_in else length + _FULL

    def _length(self) -> int:
        try:
            return os.stat(self._path).st_size
        except FileNotFoundError:  # nothing was written yet
            return 0
