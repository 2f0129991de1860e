"""The tables of a state file, how a new file comes to be, and how an old one is brought up to date."""

import errno
import os
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from stat import S_ISDIR

from pipeline.settle.database import transaction
from pipeline.settle.history import put

__all__ = ("APPLICATION", "VERSION", "create", "declared", "fsync_directory", "make_directory", "migrate")

APPLICATION = int.from_bytes(b"PLst")
"""SQLite's ``application_id``: marks a file as ours."""

_FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, lineage TEXT NOT NULL, run INTEGER NOT NULL, started REAL NOT NULL,
        ended REAL, outcome TEXT, exit_code INTEGER, report TEXT)""",
    """CREATE TABLE cuts (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lineage TEXT NOT NULL, run INTEGER NOT NULL, taken_at REAL NOT NULL,
        checksum TEXT NOT NULL, content TEXT NOT NULL)""",
    # In what follows, `cut` is the cut that saved a row and `gone` the one that no longer needed it: such a row is
    # kept as long as a rewind may want it back.
    """CREATE TABLE letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT, stage TEXT NOT NULL, source TEXT NOT NULL, number INTEGER NOT NULL,
        child TEXT NOT NULL, key TEXT NOT NULL, error_type TEXT NOT NULL, error TEXT NOT NULL,
        attempts INTEGER NOT NULL, position TEXT NOT NULL, record TEXT NOT NULL, at REAL NOT NULL,
        run INTEGER NOT NULL, lineage TEXT NOT NULL, replays INTEGER NOT NULL, metadata TEXT NOT NULL,
        shown INTEGER NOT NULL, cut INTEGER NOT NULL, gone INTEGER)""",
    """CREATE TABLE changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, stage TEXT NOT NULL, key TEXT NOT NULL, source TEXT NOT NULL,
        number INTEGER NOT NULL, value TEXT, cut INTEGER NOT NULL, UNIQUE (stage, key, source, number))""",
    "CREATE INDEX changes_by_number ON changes (source, number)",
    """CREATE TABLE named (
        id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT NOT NULL, path TEXT NOT NULL, identity TEXT NOT NULL,
        lineage TEXT NOT NULL, gone INTEGER, UNIQUE (sink, path))""",
)

# A letter that fails again in a replay is a row of its own, so that no number of a replay means two records; `letter`
# is the id that it keeps, left out where that is the row's.
_LETTERS_KEEP_IDS = ("ALTER TABLE letters ADD COLUMN letter INTEGER",)

_MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _LETTERS_KEEP_IDS)
"""What makes version n + 1 of version n; only ever added to."""

VERSION = len(_MIGRATIONS)
"""The newest schema that this code knows, SQLite's ``user_version``."""


def create(path: Path, pipeline: str) -> None:
    """Make a new state file: there under its name whole and durable, or not at all. Expects the lock to be held.

    :raises sqlite3.Error, OSError: when that fails; nothing is left behind but, after a crash, a temporary file
        that the next call removes.
    """
    for left in path.parent.glob(f".{path.name}.*.new*"):
        left.unlink()
    with _made(path.with_name(f".{path.name}.{os.urandom(8).hex()}.new"), path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        migrate(connection)
        put(connection, "pipeline", pipeline)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # to close it would do so too, and tell no failure


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema to `VERSION`, in one transaction; before, a file of an older one is copied to ``NAME.v1``."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version < VERSION:
        if version:
            _back_up(connection, version)
        transaction(lambda each: _apply(each, version))(connection)


def declared(version: int) -> set[tuple[str, str, str | None]]:
    """Return type, name and text of all that a state file of a version declares."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _execute(connection, _MIGRATIONS[:version])
        return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


def make_directory(path: Path) -> None:
    """Make a directory and those above it that are missing, for us alone under any umask, and durably."""
    # One look: between two of them somebody else may have made it.
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    if mode is not None and S_ISDIR(mode):
        return
    if mode is not None:
        raise NotADirectoryError(errno.ENOTDIR, f"{path} is no folder")
    make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _back_up(connection: sqlite3.Connection, version: int) -> None:
    """Keep the file as it is, durably, beside it: older code can read no newer schema."""
    name: str = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
    if not name:
        return  # in memory: a look at what a run would make
    path = Path(name)
    kept = path.with_name(f"{path.name}.v{version}")
    temporary = path.with_name(f".{kept.name}.new")
    temporary.unlink(missing_ok=True)
    with _made(temporary, kept) as copy:
        connection.backup(copy)


@contextmanager
def _made(temporary: Path, path: Path) -> Generator[sqlite3.Connection, None, None]:
    """Make a database for us alone, there under its name whole and durable, or not at all."""
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # SQLite gives -wal and -shm the mode of the file, whatever the umask.
        os.fchmod(descriptor, 0o600)
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            # Nobody knows of the file before it has its name, and one sync before that does for all of it.
            connection.execute("PRAGMA synchronous = OFF")
            yield connection
        os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        for name in (temporary.name, f"{temporary.name}-wal", f"{temporary.name}-shm"):
            temporary.with_name(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    fsync_directory(path.parent)


def _apply(connection: sqlite3.Connection, version: int) -> None:
    _execute(connection, _MIGRATIONS[version:])
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _execute(connection: sqlite3.Connection, migrations: Iterable[Iterable[str]]) -> None:
    for statements in migrations:
        for statement in statements:
            connection.execute(statement)
