"""The newest batches of a pipeline in a file beside its state, so that they are there after a restart too.

They are history, not state: nothing is resumed from them, they are not synced, and a run goes on without them.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from anyio import to_thread

from pipeline.service.http.shapes import BatchView

__all__ = ("KeptBatches",)

_KEPT = 1000
_TABLE = "CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY AUTOINCREMENT, batch TEXT NOT NULL)"
_PRUNE = f"DELETE FROM batches WHERE id <= (SELECT max(id) FROM batches) - {_KEPT}"


class KeptBatches:
    """The file of a pipeline whose state is at a path; without a state nothing is kept."""

    def __init__(self, state: str | None) -> None:
        self._path = Path(state).with_suffix(".batches.db") if state is not None else None

    async def load(self) -> list[BatchView]:
        """Return what is kept, the oldest first.

        :raises OSError, sqlite3.Error: when the file can't be read.
        """
        return await to_thread.run_sync(self._load)

    async def add(self, batches: Sequence[BatchView]) -> None:
        """Keep more batches, and forget the oldest.

        :raises OSError, sqlite3.Error: when the file can't be written.
        """
        if self._path is not None and batches:
            await to_thread.run_sync(self._add, batches)

    def _load(self) -> list[BatchView]:
        if self._path is None or not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path)) as connection:
            rows = connection.execute("SELECT batch FROM batches ORDER BY id").fetchall()
        try:
            return [msgspec.json.decode(row[0], type=BatchView) for row in rows]
        except msgspec.DecodeError as error:
            raise sqlite3.DataError(f"{self._path}: {error}") from error

    def _add(self, batches: Sequence[BatchView]) -> None:
        assert self._path is not None
        # For us alone under any umask, as the state is.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_TABLE)
            rows = [(msgspec.json.encode(each).decode(),) for each in batches]
            connection.executemany("INSERT INTO batches (batch) VALUES (?)", rows)
            connection.execute(_PRUNE)
