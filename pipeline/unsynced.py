"""Closing an SQLite database whose storage has failed."""

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ("close_as_it_is",)


def close_as_it_is(connection: sqlite3.Connection) -> None:
    """Close a connection and leave the write-ahead log to whoever opens the file next, as a crash does.

    Whoever closes a database last brings its log into it and syncs both. After a sync that failed another one says
    nothing: it may succeed though what it was for is gone.
    """
    try:
        path: str = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as reader:
            # While somebody else has the file open nothing is done to its log; and who only reads can do nothing.
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.close()
    except (sqlite3.Error, ValueError):  # not even that can be read, or it is nowhere
        connection.close()
