"""The state file: what was saved, durably, and the only one that writes it."""

import sqlite3
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from anyio import to_thread
from msgspec import structs

from pipeline.clock import Clock, SystemClock
from pipeline.errors import StateError, StorageError
from pipeline.settle import changes, history, letters, named, partitions
from pipeline.settle.cut import Cut, Letter, SavedCut, SavedRun
from pipeline.settle.database import Database, Work, explained, transaction, trial
from pipeline.settle.fingerprint import Fingerprint
from pipeline.settle.lock import Lock
from pipeline.settle.resume import Beginning, Begun, begun_last, check_pipeline, cut_of
from pipeline.settle.schema import create, make_directory, migrate
from pipeline.settle.traces import Traces
from pipeline.settle.verify import beside, require_file, verify
from pipeline.settle.view import Readings, real_path
from pipeline.stage import NamedFile, Partition

__all__ = ("ORPHANED", "StateFile", "edit_state", "open_state")

T = TypeVar("T")

ORPHANED = "the state file is gone but its -wal is there; restore it, or move that aside"
"""What is wrong where SQLite left half of a database."""


class StateFile(Readings):
    """An open state file that we hold the lock of. Made by `open_state` for a run, by `edit_state` for a command.

    Every method that writes is one transaction, durable when it returns, there whole or not at all whatever happens,
    and never mixed with another; a cancellation waits for its end. After a `StorageError` nothing is written again:
    each further call raises the same error.
    """

    run: int
    """Counts the runs of the lineage, from 1."""
    cut: Cut | None
    """The last cut saved, without its letters and changes; None in a new lineage."""
    changed: Sequence[str]
    """What differs from the last run and may; sentences for the log."""

    def __init__(self, path: Path, database: Database, begun: Begun, beginning: Beginning | None = None) -> None:
        super().__init__(path, database)
        self.lineage, self.run, self.cut, self.changed, self._others = begun
        self._beginning = beginning
        self._failed: StorageError | None = None

    @property
    def begun(self) -> bool:
        """Whether the beginning of the run is saved."""
        return self._beginning is None

    async def begin(self) -> None:
        """Save that the run begins, if that was put off: to be called before the first read."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            await self._write(beginning.begin)

    async def named(self, sink: str) -> list[NamedFile]:
        """Return what `Readings.named` does, also while the beginning is put off: as it will be when it is saved."""
        found = await super().named(sink)
        if self._beginning is None or sink not in self._others:
            return found
        former = named.former(self.lineage, self.run)
        return [structs.replace(file, lineage=former) if file.lineage == self.lineage else file for file in found]

    async def save(self, cut: Cut) -> None:
        """Save a cut, which becomes the current one.

        Its letters are taken as they are when this is called, and have their ids when it returns. Raises what the
        class says, and TypeError or ValueError for a cursor, a position or a key that JSON can't hold: a bug of its
        stage.

        :raises StorageError: when the storage fails; the cut before is still there.
        """
        rows = letters.rows_of(cut.letters)
        given = await self._write(partial(self._save, cut=cut, rows=rows))
        for letter, row in zip(cut.letters, given, strict=True):
            letter.id, letter.row = letter.id or row, row
        self.cut = structs.replace(cut, letters=[], replayed=[], changes=[])

    async def announce(self, sink: str, files: Sequence[NamedFile]) -> None:
        """Name new files of a sink, before their first byte. Waits for no cut but one that is being written."""
        await self._write(partial(named.add, sink=sink, files=files, lineage=self.lineage))

    async def forget(self, sink: str, paths: Iterable[str]) -> None:
        """Name files no longer."""
        await self._write(partial(named.forget, sink=sink, paths=list(paths)))

    async def finish(self, outcome: str, exit_code: int, report: Any, at: float) -> None:
        """Note how the run ended; ``at`` is in seconds since 1970. Notes nothing of a run that never began."""
        if self._beginning is not None:
            return
        ending = SavedRun(
            lineage=self.lineage, run=self.run, started=0, ended=at, outcome=outcome, exit_code=exit_code, report=report
        )
        await self._write(partial(history.end_run, lineage=self.lineage, run=self.run, ending=ending))

    async def divide(self, found: Sequence[Partition]) -> None:
        """Save further partitions of the source, behind those that there are; they are never changed again."""
        await self._write(partial(partitions.add, lineage=self.lineage, found=list(found)))

    async def partition_done(self, number: int, account: Mapping[str, int]) -> None:
        """Note that all of a partition is settled, and how its records ended."""
        await self._write(partial(partitions.finish, number=number, account=dict(account)))

    async def take_letters(self, found: Sequence[Letter]) -> None:
        """Take over dead letters of a partition's state file, but for those that were taken over before."""
        await self._write(partial(letters.take_over, rows=letters.rows_of(found)))

    async def delete_letters(self, ids: Sequence[int]) -> int:
        """Delete dead letters for good; return how many of them there were."""
        return await self._write(partial(letters.drop, ids=ids))

    async def purge_letters(self, wanted: letters.Wanted) -> int:
        """Delete the dead letters that are wanted for good; return how many of them there were."""
        return await self._write(partial(letters.drop_wanted, wanted=wanted))

    async def rewind(self, to: int) -> SavedCut:
        """Make an older cut of this lineage the current one and return it.

        What was saved since goes: newer cuts, letters, state of stages; letters replayed since are back, and files
        forgotten since are named again.

        :raises StateError: when the cut isn't kept, or the state of stages isn't that far back.
        """
        found = await self._write(partial(_rewind, lineage=self.lineage, to=to))
        self.cut = cut_of(found)
        return found

    async def clear(self) -> None:
        """Forget where sources and sinks are and the state of stages; keep letters, named files and history.

        The next run begins a new lineage, with any stages.
        """
        await self._write(_clear)
        self.lineage, self.run, self.cut = "", 0, None

    def _save(self, connection: sqlite3.Connection, cut: Cut, rows: list[letters.Row]) -> list[int]:
        number = history.save_cut(connection, self.lineage, self.run, cut)
        given = letters.add(connection, rows, number)
        letters.mark_gone(connection, cut.replayed, number)
        changes.add(connection, cut.changes, number)
        if number % history.THIN_EVERY == 0:
            oldest = history.thin(connection, self.lineage)
            letters.forget_gone(connection, oldest)
            named.forget_gone(connection, oldest)
            changes.prune(connection, self.lineage)
        return given

    async def _write(self, unit: Work[T]) -> T:
        if self._failed is not None:
            raise self._failed
        await self.begin()
        try:
            return await self._database.run(transaction(unit))
        except StorageError as error:
            # A failed fsync can't be made good by another: what it was for may be gone already.
            self._failed = error
            raise


@asynccontextmanager
async def open_state(
    path: str | Path,
    *,
    pipeline: str,
    fingerprint: Fingerprint,
    description: Mapping[str, str] | None = None,
    fresh: bool = False,
    accept_changes: bool = False,
    clock: Clock | None = None,
    begin: bool = True,
) -> AsyncGenerator[StateFile, None]:
    """Open the state file of a pipeline for a run, made when it is missing; the run's number is saved when this enters.

    ``fingerprint`` has for each source, sink and stateful stage by name its ``role`` and identity; it must be that of
    the last run. ``accept_changes`` goes on without the positions of stages that aren't the same, ``fresh`` without
    any: a new lineage. ``description`` has what else the log should say when it changes, see `describe_changes`.
    ``begin=False`` puts off everything that is written until `StateFile.begin` or the first other call that writes, so
    that a sink that refuses to open leaves the old lineage as it was, or no file where there was none.

    :raises LockedError: when another process holds the file; names its pid.
    :raises StateError: when it is corrupt, not ours, newer than us, of another pipeline, or of other stages. Nothing
        was touched.
    :raises StorageError: when the storage fails.
    """
    real = real_path(path)
    at = (clock or SystemClock()).wall()
    beginning = Beginning(pipeline, fingerprint, description or {}, fresh, accept_changes, at)
    lock, traces = Lock(real), Traces(real)
    state: StateFile | None = None
    try:
        await _take_place(lock, real)
        await to_thread.run_sync(lock.while_held, partial(_ready, real, beginning, traces))
        async with _database(real) as database:
            unit = transaction(beginning.begin) if begin else trial(beginning.begin)
            state = StateFile(real, database, await database.run(unit), None if begin else beginning)
            yield state
    finally:
        begun = state is not None and state.begun
        lock.release(remove=not begun and traces.remove_state())
        if not begun:
            traces.remove_folders()


@asynccontextmanager
async def edit_state(path: str | Path, *, pipeline: str) -> AsyncGenerator[StateFile, None]:
    """Open a state file that exists to change it without a run: rewind, clear, delete letters.

    :raises LockedError: when another process holds the file; names its pid.
    :raises StateError: when it is missing, corrupt, not ours, newer than us, or of another pipeline.
    """
    real = real_path(path)
    lock = Lock(real)
    try:
        await to_thread.run_sync(require_file, real)
        _acquire(lock, real)
        await to_thread.run_sync(lock.while_held, partial(_verify, real, pipeline))
        async with _database(real) as database:
            yield StateFile(real, database, await database.run(begun_last))
    finally:
        lock.release()


_MOST_TRIES = 10


async def _take_place(lock: Lock, path: Path) -> None:
    """Make the folder and take the lock in it: only then nobody who finds the folder empty takes it away."""
    for left in reversed(range(_MOST_TRIES)):
        try:
            await to_thread.run_sync(make_directory, path.parent)
            return lock.acquire()
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or not left:
                raise explained(error, path) from error


def _acquire(lock: Lock, path: Path) -> None:
    try:
        lock.acquire()
    except OSError as error:
        raise explained(error, path) from error


def _verify(path: Path, pipeline: str) -> None:
    verify(path, partial(check_pipeline, pipeline=pipeline, path=path))


def _ready(path: Path, beginning: Beginning, traces: Traces) -> None:
    """Verify the file, or make it when there is none."""
    try:
        if path.exists():
            verify(path, partial(beginning.check, path=path))
        elif beside(path, "-wal").exists():
            # SQLite would take it for the new file's and mix the two.
            raise StateError(f"{path}: {ORPHANED}")
        else:
            create(path, beginning.pipeline)
            traces.made_state = True
    except (sqlite3.Error, OSError) as error:
        raise explained(error, path) from error


@asynccontextmanager
async def _database(path: Path) -> AsyncGenerator[Database, None]:
    database = await Database.open(path)
    try:
        await database.run(_configure)
        yield database
    finally:
        await database.close()


def _configure(connection: sqlite3.Connection) -> None:
    """Set what durability rests on and read it back: builds of SQLite differ in their defaults."""
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous != 2:
        raise StateError(f"this file system can't hold the state: journal mode {mode}, synchronous {synchronous}")
    migrate(connection)


def _rewind(connection: sqlite3.Connection, lineage: str, to: int) -> SavedCut:
    found = history.read_cut(connection, lineage, to)
    changes.rewind(connection, found)
    letters.rewind(connection, to)
    named.rewind(connection, to)
    connection.execute("DELETE FROM cuts WHERE lineage = ? AND id > ?", (lineage, to))
    history.put(connection, "cut", to)
    return found


def _clear(connection: sqlite3.Connection) -> None:
    changes.clear(connection)
    history.remove(connection, "lineage", "run", "fingerprint", "description", "cut")
    partitions.clear(connection)
