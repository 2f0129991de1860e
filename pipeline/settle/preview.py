"""A state file as a run would find it, for one that only tries."""

import sqlite3
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from anyio import to_thread

from pipeline.clock import Clock, SystemClock
from pipeline.errors import StateError
from pipeline.settle.database import Database, explained
from pipeline.settle.fingerprint import Fingerprint
from pipeline.settle.lock import Lock
from pipeline.settle.resume import Beginning
from pipeline.settle.schema import VERSION, migrate
from pipeline.settle.state import ORPHANED, StateFile
from pipeline.settle.verify import beside, read_options, verify
from pipeline.settle.view import real_path

__all__ = ("preview_state",)


@asynccontextmanager
async def preview_state(
    path: str | Path,
    *,
    pipeline: str,
    fingerprint: Fingerprint,
    description: Mapping[str, str] | None = None,
    fresh: bool = False,
    accept_changes: bool = False,
    clock: Clock | None = None,
) -> AsyncGenerator[StateFile, None]:
    """Open a state file as `open_state` does for a run that never begins: nothing is made, locked or written.

    The arguments and what it refuses are those of `open_state`.
    """
    real = real_path(path)
    beginning = Beginning(
        pipeline, fingerprint, description or {}, fresh, accept_changes, (clock or SystemClock()).wall()
    )
    current = await to_thread.run_sync(partial(_is_current, real, beginning))
    database = await Database.open(real, options=read_options(real) if current else "mode=memory")
    try:
        if not current:
            await database.run(partial(_copy, path=real))
        yield StateFile(real, database, await database.run(beginning.look), beginning)
    finally:
        await database.close()


def _is_current(path: Path, beginning: Beginning) -> bool:
    """Refuse what a run would refuse; tell whether there is a file, of the newest schema."""
    try:
        Lock(path).look()
        if not path.exists():
            if beside(path, "-wal").exists():
                raise StateError(f"{path}: {ORPHANED}")
            return False
        found: list[int] = []

        def check(connection: sqlite3.Connection) -> None:
            beginning.check(connection, path)
            found.append(connection.execute("PRAGMA user_version").fetchone()[0])

        verify(path, check)
    except (sqlite3.Error, OSError) as error:
        raise explained(error, path) from error
    return found == [VERSION]


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Make in memory what a run would make: a new state, or one of an older version brought to the newest."""
    if path.exists():
        uri = f"{path.absolute().as_uri()}?{read_options(path)}"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as source:
            source.backup(connection)
    migrate(connection)
