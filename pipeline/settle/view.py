"""Reading what is in a state file, also while a run holds it."""

import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import to_thread

from pipeline.errors import StateError
from pipeline.settle import changes, history, letters, named, partitions
from pipeline.settle.cut import Change, Letter, SavedCut, SavedRun
from pipeline.settle.database import Database
from pipeline.settle.letters import Living, Outline, Wanted
from pipeline.settle.partitions import SavedPartition
from pipeline.settle.schema import APPLICATION, VERSION
from pipeline.settle.verify import read_options, require_file
from pipeline.stage import NamedFile

__all__ = ("Readings", "StateView", "open_view", "real_path")

_EVERY = Wanted()


class Readings:
    """What can be read of a state file. Each call is one short look that sees one moment of the file."""

    lineage: str = ""
    """The current lineage, 16 hexadecimal digits; empty before the first run."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._database = database

    async def letters(self, wanted: Wanted = _EVERY, limit: int = 100, after: int = 0) -> list[Letter]:
        """Return dead letters of all lineages, the oldest first: at most ``limit``, with ids above ``after``."""
        return await self._database.run(lambda each: letters.select(each, wanted, limit, after))

    async def letter(self, number: int) -> Letter | None:
        """Return the dead letter of this id."""
        found = await self.letters(limit=1, after=number - 1)
        return found[0] if found and found[0].id == number else None

    async def count_letters(self, wanted: Wanted = _EVERY) -> int:
        """Return how many dead letters there are."""
        return await self._database.run(lambda each: letters.count(each, wanted))

    async def letter_outlines(self, wanted: Wanted) -> list[Outline]:
        """Return the outlines of all dead letters that are wanted, by ascending id."""
        return await self._database.run(lambda each: letters.outlines(each, wanted))

    async def letters_in(self, rows: Sequence[int]) -> list[Letter]:
        """Return the dead letters in these rows, by ascending row."""
        return await self._database.run(lambda each: letters.in_rows(each, rows))

    async def living_letters(self) -> Living:
        """Return which rows are dead letters now."""
        return await self._database.run(letters.living)

    async def named(self, sink: str) -> list[NamedFile]:
        """Return the files that a sink named and has not forgotten, of all lineages, the newest last."""
        return await self._database.run(lambda each: named.select(each, sink))

    async def runs(self, limit: int = 100) -> list[SavedRun]:
        """Return the runs of all lineages, the newest first."""
        return await self._database.run(lambda each: history.list_runs(each, limit))

    async def cuts(self, limit: int = 100) -> list[SavedCut]:
        """Return the cuts of the current lineage that are kept, the newest first; the first is where a run goes on."""
        return await self._database.run(lambda each: history.list_cuts(each, self.lineage, limit))

    async def partitions(self) -> list[SavedPartition]:
        """Return the partitions of the current lineage in order; none where one process runs the pipeline."""
        return await self._database.run(lambda each: partitions.select(each, self.lineage))

    async def changes_of(self, stage: str) -> list[Change]:
        """Return the saved changes of a stage's keyed state by ascending number: all that a resume may ask for."""
        return await self._database.run(lambda each: changes.select(each, stage))


class StateView(Readings):
    """A state file that is only looked at; made by `open_view`."""

    pipeline: str = ""
    """Whose state it is."""
    run: int = 0
    """The number of the last run."""

    async def refresh(self) -> None:
        """Look again at lineage and run."""
        self.pipeline, self.lineage, self.run = await self._database.run(_identity)


@asynccontextmanager
async def open_view(path: str | Path) -> AsyncGenerator[StateView, None]:
    """Open a state file to look at it; needs no lock. Where no run holds it, the view shows it as it is now.

    :raises StateError: when it is missing, corrupt, not ours or newer than us.
    """
    real = real_path(path)
    await to_thread.run_sync(require_file, real)
    database = await Database.open(real, options=read_options(real))
    try:
        view = StateView(real, database)
        await view.refresh()
        yield view
    finally:
        await database.close()


def real_path(path: str | Path) -> Path:
    """Return the path without symbolic links, so that one file has one name, one lock and one -wal."""
    return Path(path).resolve()


def _identity(connection: sqlite3.Connection) -> tuple[str, str, int]:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise StateError("this is not a state file; name another")
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        raise StateError("written by another version; look at it with that one")
    pipeline: Any = history.get(connection, "pipeline")
    return pipeline, history.get(connection, "lineage") or "", history.get(connection, "run") or 0
