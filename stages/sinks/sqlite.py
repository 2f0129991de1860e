"""The sink of kind `sqlite`: records become rows, in one transaction with the numbers they settle."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, structs

from pipeline.batch import Batch
from pipeline.errors import ConfigError
from pipeline.spans import Held
from pipeline.stage import FilePath, Parting, Resume, Sink, SinkContext, TransactionWriter
from pipeline.stage import key as described  # `key` is a key of this sink
from stages.sinks.sqlite_ledger import Ledger
from stages.sinks.sqlite_packing import pack, unpack
from stages.sinks.sqlite_table import Table
from stages.sqlite_connection import SqliteConnection

__all__ = ("Sqlite", "SqliteWriter")

T = TypeVar("T")

_BYTES_OF_A_ROW = 512
"""So many bytes take about as long to write as a row takes whatever it holds."""
_LOGGED = b"\x02\x02"
"""What is at byte 18 of a database with a write-ahead log."""


class Sqlite(Sink, kw_only=True):
    """Writes each record as a row of a table, a batch a transaction.

    Exactly once with a source that replays: the transaction also holds the numbers of its records, and on resume what
    is already there is dropped. A power cut loses nothing that a checkpoint covers. Records are dicts or typed; nested
    values become JSON text, dates ISO text. A value that the table can't keep as it is makes its record fail.
    """

    path: Annotated[FilePath, Meta(min_length=1), described("Database file; made if missing.", file=True)]
    table: Annotated[str, Meta(min_length=1), described("Table that the rows go to.")]
    columns: Annotated[
        list[str] | None, Meta(min_length=1), described("Fields to write; all of them when left out.")
    ] = None
    mode: Annotated[
        Literal["insert", "upsert", "overwrite"],
        described(
            "insert adds rows, upsert replaces the row with the same key, overwrite first empties the table, once."
        ),
    ] = "insert"
    create: Annotated[
        bool, described("Make the table from the first records, and add columns for new fields; false: it is as it is.")
    ] = True
    key: Annotated[
        str | list[str] | None,
        Meta(min_length=1),
        described("Field, or fields, that upsert goes by; unique in the table."),
    ] = None

    def identity(self) -> Mapping[str, Any]:
        """Return the file and the table."""
        return {"path": self.path, "table": self.table}

    def resumes(self) -> Resume:
        """Return that rows and numbers share a transaction."""
        return Resume.TRANSACTION

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return what is wrong with the keys taken together."""
        if self.mode == "upsert" and self.key is None:
            yield "key", "mode: upsert needs a key: the field, or fields, that say which row a record replaces"
        if self.mode != "upsert" and self.key is not None:
            yield "key", f"a key is for mode: upsert, not {self.mode}"
        if self.table.lower().startswith(("sqlite_", "_pipeline_")) or "\0" in self.table:
            yield "table", f"{self.table!r} can't be used: names like this belong to SQLite or to the pipeline"
        missing = [name for name in self._keys() if self.columns is not None and name not in self.columns]
        if missing:
            yield "columns", f"the key {missing[0]!r} has to be among them"

    def parting(self, merge: bool) -> Parting | str:
        """Return that all workers write through one process."""
        if self.mode == "upsert":
            return "upsert keeps the last record of a key, and the partitions of several workers have no order"
        return Parting.ONE_WRITER

    def for_partition(self, number: int, lineage: str, hidden: bool) -> "Sqlite":
        """Return the sink of a partition: what overwrite empties is emptied once, before all of them."""
        return structs.replace(self, mode="insert")

    def pack(self, records: Sequence[Any]) -> bytes:
        """Return records as bytes.

        :raises RecordErrors: names those that can't be stored.
        """
        return pack(records)

    def unpack(self, packed: bytes) -> list[Any]:
        """Return the records."""
        return unpack(packed)

    async def open(self, context: SinkContext) -> "SqliteWriter":
        """Open the database, and see that it fits the state.

        :raises ConfigError: when it can't be opened, or the table is missing and may not be made.
        :raises StateError: when it is damaged, or holds what another state file knows about.
        """
        who = f"stage {context.name!r} (sink sqlite): {self.path}"
        for _, text in self.problems():
            raise ConfigError(f"stage {context.name!r} (sink sqlite): {text}")
        table = Table(who, self.table, self.columns, self._keys(), self.create)
        ledger = Ledger(who, context, self.table, self.mode != "insert") if context.saved else None
        writer = SqliteWriter(SqliteConnection(who), table, ledger, shared=bool(context.partition))
        try:
            await writer.open(os.fspath(self.path), self.mode == "overwrite", context.dry, self.create)
        except BaseException:
            await writer.close()
            raise
        return writer

    def _keys(self) -> list[str]:
        return [self.key] if isinstance(self.key, str) else self.key or []


class SqliteWriter(TransactionWriter):
    """Writes batches, each in a transaction of its own; made by `Sqlite.open`."""

    def __init__(
        self, connection: SqliteConnection, table: Table, ledger: Ledger | None, *, shared: bool = False
    ) -> None:
        self._connection = connection
        # Whether others change the table's columns too, so that each transaction looks whether one has.
        self._shared = shared
        self._version: Any = None
        self._table = table
        self._ledger = ledger
        self._held = Held()
        # A commit of an earlier process may not be on the disk yet, though we read it.
        self._unsealed = True

    async def open(self, path: str, overwrite: bool, dry: bool, create: bool) -> None:
        """Verify what there is; then, unless ``dry``, take the table over."""
        missing = _is_missing(path, create)
        mode = "rwc" if create else "rw"
        # Where the file would be made it stands empty in memory: who is refused has made none.
        await self._connection.open(path, "memory" if missing else _looking(path) if dry else mode)
        # Before anything is touched: choosing the journal is a change of the file already.
        await self._connection.read(self._verify, opening=True)
        if dry:
            await self._connection.read(self._table.refuse_doubles)
            return
        if missing:
            self._table.forget()
            await self._connection.open(path, mode)
        await self._connection.keep_log()
        await self._connection.transact(lambda connection: self._claim(connection, overwrite), opening=True)
        self._table.forget()

    async def write(self, batch: Batch) -> None:
        """Write all records of a batch and their numbers in one transaction, or nothing.

        :raises RecordErrors: names the records that the table refuses, or could not keep as they are.
        :raises Unavailable: when another process holds the database's lock for 5 seconds.
        :raises StorageError: when the disk is full or fails.
        :raises StageError: when another process has taken over.
        """
        if not batch.records:
            return
        try:
            await self._connection.transact(
                lambda connection: self._write(connection, batch),
                brief=lambda connection: self._write(connection, batch, brief=True),
                size=len(batch.records) + batch.size // _BYTES_OF_A_ROW,
            )
        except BaseException:
            self._table.forget()
            raise
        self._unsealed = True
        if self._ledger is not None:
            self._ledger.written()

    def held(self) -> Held:
        """Return the records that were there when the sink was opened and may come again."""
        return self._held

    async def seal(self) -> None:
        """Make everything committed so far durable."""
        if self._ledger is None or not self._unsealed:
            return
        # Writes may follow while this waits: only what came before it counts as sealed.
        self._unsealed = False
        try:
            await self._connection.transact(self._ledged(Ledger.seal), durable=True)
        except BaseException:
            self._unsealed = True
            raise

    async def prune(self, frontiers: Mapping[str, int]) -> None:
        """Forget the numbers below the frontiers."""
        ledger = self._ledger
        if ledger is None or ledger.pruned(frontiers):
            return
        below = dict(frontiers)
        await self._connection.transact(self._ledged(lambda ledger, connection: ledger.prune(connection, below)))
        ledger.note_pruned(below)

    async def close(self) -> None:
        """Close the database."""
        await self._connection.close()

    # --- in the connection's thread, or, where it is brief, in that of the loop ---

    def _verify(self, connection: sqlite3.Connection) -> bool:
        self._table.verify(connection)
        known = self._ledger is not None and self._ledger.verify(
            connection, self._table.exists(connection), self._table.rows(connection)
        )
        if self._ledger is not None:
            self._held = self._ledger.held(connection)
        return known

    def _claim(self, connection: sqlite3.Connection, overwrite: bool) -> None:
        known = self._verify(connection)
        if self._ledger is not None:
            self._ledger.claim(connection)
        if overwrite and not known:
            self._table.empty(connection)
            if self._ledger is not None:
                self._ledger.forget_others(connection)
        self._table.prepare(connection)

    def _write(self, connection: sqlite3.Connection, batch: Batch, *, brief: bool = False) -> None:
        if self._ledger is not None:
            self._ledger.check(connection)
        if self._shared:
            version = connection.execute("PRAGMA schema_version").fetchone()[0]
            if version != self._version:
                self._table.forget()
            self._version = version
        self._table.write(connection, batch.records, brief=brief)
        if self._ledger is not None:
            self._ledger.add(connection, batch)

    def _ledged(self, work: Callable[[Ledger, sqlite3.Connection], T]) -> Callable[[sqlite3.Connection], T]:
        ledger = self._ledger
        if ledger is None:
            raise RuntimeError("no ledger without a state file")

        def checked(connection: sqlite3.Connection) -> T:
            ledger.check(connection)
            return work(ledger, connection)

        return checked


def _is_missing(path: str, create: bool) -> bool:
    # Where the file could not be made, to open it says so.
    return create and not Path(path).exists() and Path(path).absolute().parent.is_dir()


def _looking(path: str) -> str:
    """Return how to open a database that is to stay as it is, and its folder too."""
    real = Path(path).resolve()
    try:
        with open(real, "rb", opener=_at_once) as file:
            logs = file.read(20)[18:] == _LOGGED
    except OSError:
        return "ro"  # to open it says why
    # Whoever has it open has a log beside it; without one, to read would make one that only a writer takes away. Where
    # none can be made the run can't write either: to open it says so.
    still = logs and not Path(f"{real}-wal").exists() and os.access(real.parent, os.W_OK)
    return "still" if still else "ro"


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for a writer
