"""Looks into a state file before it is used: whether it is ours, whole and fit to go on from. Changes nothing."""

import sqlite3
import stat
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.errors import StateError
from pipeline.settle.database import WAYS_OUT, explained, placed
from pipeline.settle.json_text import one_line
from pipeline.settle.schema import APPLICATION, VERSION, declared

__all__ = ("beside", "read_options", "require_file", "verify")

_ALWAYS_CHECKED = 16 * 2**20
"""Files up to this many bytes are checked at each start; that takes some 20 ms. Larger ones after an unclean stop."""


def require_file(path: Path) -> None:
    """Refuse a state file that is missing, empty, no file, or has a second name.

    :raises StateError: says which.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise StateError(f"{path}: there is no state file here; nothing has been run with it yet") from None
    except OSError as error:
        raise explained(error, path) from error
    if not stat.S_ISREG(found.st_mode):
        raise StateError(f"{path}: the state file is no regular file; name another")
    if found.st_nlink > 1:
        # The -wal goes by the name, so two names of one database make two databases of it.
        raise StateError(f"{path}: the state file has {found.st_nlink} hard links; remove all but one")
    if found.st_size == 0:
        raise StateError(f"{path}: the state file is empty, what it held is lost; {WAYS_OUT}")


def verify(path: Path, check: Callable[[sqlite3.Connection], None]) -> None:
    """Refuse a file that isn't a whole state file of a version that we know, or that ``check`` raises for.

    Reads only, and leaves no file behind that wasn't there. Blocks.

    :raises StateError: says what is wrong and what to do.
    """
    require_file(path)
    unclean = _size(beside(path, "-wal")) > 0
    try:
        _look_at_file(path, unclean)
        with _undone(path), _reading(path, read_options(path)) as connection:
            _check_header(connection, path)
            if unclean or _size(path) <= _ALWAYS_CHECKED:
                _check_pages(connection, path)
            _check_schema(connection, path)
            check(connection)
    except sqlite3.Error as error:
        raise explained(error, path) from error
    except StateError as error:
        raise placed(error, path) from error
    except (ValueError, TypeError, KeyError) as error:
        # Text that is not UTF-8, no JSON, or not of the shape that we write.
        raise StateError(f"{path}: the state file is corrupt ({one_line(error)}); {WAYS_OUT}") from error


def read_options(path: Path) -> str:
    """Return how to open a state file only to read it, without making files beside it where that can be."""
    return "mode=ro" if _size(beside(path, "-wal")) > 0 else "mode=ro&immutable=1"


def beside(path: Path, suffix: str) -> Path:
    """Return the path of one of the files beside a database."""
    return path.with_name(path.name + suffix)


@contextmanager
def _reading(path: Path, options: str) -> Generator[sqlite3.Connection, None, None]:
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True, isolation_level=None)
    ) as connection:
        yield connection


@contextmanager
def _undone(path: Path) -> Generator[None, None, None]:
    """Remove the -shm that reading a -wal made when the file is then refused."""
    shared = beside(path, "-shm")
    before = shared.exists()
    try:
        yield
    except BaseException:
        if not before:
            shared.unlink(missing_ok=True)
        raise


def _look_at_file(path: Path, unclean: bool) -> None:
    """Refuse a file that is somebody else's or cut by itself alone, without touching a -wal that may be in use."""
    try:
        with _reading(path, "mode=ro&immutable=1") as connection:
            _check_header(connection, path)
            if not unclean:
                _check_length(connection, path)
    except sqlite3.DatabaseError:
        # A kill while SQLite moves pages from the -wal into the file leaves it torn by itself, and whole with its -wal.
        if not unclean:
            raise


def _check_header(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StateError(f"{path}: this is a SQLite database, but not a state file; name another")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise StateError(
            f"{path}: written by a newer version (format {version}, this one knows up to {VERSION}); "
            "upgrade, or move the file aside to begin anew"
        )


def _check_length(connection: sqlite3.Connection, path: Path) -> None:
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if _size(path) < pages * size:
        raise StateError(f"{path}: the state file is corrupt ({_size(path)} bytes of {pages * size}); {WAYS_OUT}")


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StateError(f"{path}: the state file is corrupt ({one_line(found)}); {WAYS_OUT}")


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose declarations a disk has changed: SQLite takes any that it can read for right."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    missing = declared(version) - set(connection.execute("SELECT type, name, sql FROM sqlite_master"))
    if missing:
        _, name, _ = min(missing, key=str)
        raise StateError(f"{path}: the state file is corrupt ({name} is not as it was made); {WAYS_OUT}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
