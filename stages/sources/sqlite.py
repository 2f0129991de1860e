"""The source of kind `sqlite`: the rows of a table or a query, in the order of a column that grows."""

import os
import sqlite3
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from pipeline.batch import Failed
from pipeline.errors import ConfigError, RecordError, StageError
from pipeline.stage import Chunk, Duration, FilePath, Partition, Progress, Reader, Source, SourceContext, key
from stages.sources.key_ranges import divide_keys
from stages.sqlite_connection import SqliteConnection, quoted

__all__ = ("Sqlite", "SqliteReader")

_PAGE = 1000  # rows a read; short reads let the log of the writer be cut
_PAGE_BYTES = 4 * 2**20
_CHUNK = 500


class Sqlite(Source, kw_only=True):
    """Reads rows as dicts, in pages, each in a transaction of its own; writers are never held up.

    The cursor is the value of a column that is unique and grows: rows may be added behind, and only there. A value
    that comes twice, or NULL, is an error.
    """

    path: Annotated[FilePath, Meta(min_length=1), key("Database file.", file=True)]
    table: Annotated[str | None, Meta(min_length=1), key("Table to read.")] = None
    query: Annotated[str | None, Meta(min_length=1), key("A SELECT to read, in place of a table; needs a cursor.")] = (
        None
    )
    cursor: Annotated[
        str | None, Meta(min_length=1), key("Column that is unique and grows; for a table, rowid when left out.")
    ] = None
    poll: Annotated[
        Duration | None, key("Look for new rows this often, without end; at the end, stop when left out.")
    ] = None

    def endless(self) -> bool:
        """Tell whether it looks for new rows."""
        return self.poll is not None

    def identity(self) -> Mapping[str, Any]:
        """Return the file, what is read of it, and the order."""
        return {"path": self.path, "table": self.table, "query": self.query, "cursor": self.cursor}

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return what is wrong with the keys taken together."""
        if (self.table is None) == (self.query is None):
            yield "table", "give one of `table` and `query`"
        if self.query is not None and self.cursor is None:
            yield "cursor", "a query needs a cursor: the column of its result that is unique and grows"
        if self.poll is not None and not float(self.poll) > 0:
            yield "poll", f"must be more than 0, it is {self.poll}"

    def indivisible(self) -> str | None:
        """Return why it can't be read in partitions: only the keys of a table can be looked up one by one."""
        if self.poll is not None:
            return "it is looked at for new rows without end; leave out poll"
        return "a query has no key ranges; name a table" if self.table is None else None

    def divide(self, size: int, known: Sequence[Partition]) -> list[Partition]:
        """Return ranges of keys that hold about ``size`` bytes each, as far as a look at some rows tells."""
        if not os.path.exists(self.path):
            raise ConfigError(f"source sqlite: no database {self.path!r}")
        after = known[-1].what["upto"] if known else None
        with closing(sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            try:
                return list(divide_keys(connection, quoted(self.table or ""), self.cursor or "rowid", size, after))
            except sqlite3.Error as error:
                raise ConfigError(f"source sqlite: {self.path}: {error}") from None

    async def open(self, context: SourceContext) -> "SqliteReader":
        """Open the database and go on behind the cursor.

        :raises ConfigError: when the file, the table or a column is missing.
        :raises StateError: when the file is damaged.
        """
        who = f"stage {context.name!r} (source sqlite)"
        for name, text in self.problems():
            raise ConfigError(f"{who}: {name}: {text}")
        what = quoted(self.table) if self.table is not None else f"(\n{(self.query or '').strip().rstrip(';')}\n)"
        reader = SqliteReader(
            f"{who}: {self.path}",
            _Statements.over(what, self.cursor or "rowid", context.partition is not None),
            context,
            None if self.poll is None else float(self.poll),
        )
        try:
            await reader.open(fspath(self.path))
        except BaseException:
            await reader.close()
            raise
        return reader


@dataclass(frozen=True, slots=True)
class _Statements:
    """The statements of a source; the cursor's value is the last column of each row."""

    cursor: str
    first: str
    following: str
    nulls: str

    @classmethod
    def over(cls, what: str, cursor: str, bounded: bool = False) -> "_Statements":
        # Compared byte by byte whatever the column says: with NOCASE, "a" and "A" would be a tie that we can't see.
        column = f"_pipeline_source.{quoted(cursor)}"
        select = f"SELECT _pipeline_source.*, {column} FROM {what} AS _pipeline_source"
        order = f"ORDER BY {column} COLLATE BINARY LIMIT {_PAGE + 1}"
        first = f" WHERE {column} COLLATE BINARY <= :upto" if bounded else ""
        further = f" AND {column} COLLATE BINARY <= :upto" if bounded else ""
        return cls(
            cursor,
            f"{select}{first} {order}",
            # The last row once more: were there two of it, one would have been skipped.
            f"{select} WHERE {column} COLLATE BINARY >= :last{further} {order}",
            f"SELECT 1 FROM {what} AS _pipeline_source WHERE {column} IS NULL LIMIT 1",
        )


@dataclass(slots=True)
class _Page:
    """Rows that were read together: records, the cursor behind each, and their bytes."""

    records: list[Any]
    keys: list[Any]
    sizes: list[int]
    failed: list[int]


class SqliteReader(Reader):
    """Yields the rows in chunks; the cursor is a row's own key."""

    def __init__(self, who: str, statements: _Statements, context: SourceContext, poll: float | None) -> None:
        self._who = who
        self._statements = statements
        self._clock = context.clock
        self._max_record = context.max_record
        self._poll = poll
        part = context.partition or {"after": None, "upto": None}
        self._last: Any = context.cursor if context.cursor is not None else part["after"]
        self._upto: Any = part["upto"]
        self._done = 0
        self._connection = SqliteConnection(who)

    async def open(self, path: str) -> None:
        """Open the database and see that the rows can be read."""
        await self._connection.open(path, "ro")
        await self._connection.read(self._check, opening=True)

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield the rows behind the cursor, in its order.

        :raises StageError: when two rows have the same cursor, or one has none.
        """
        while True:
            page = await self._connection.read(self._page)
            for low in range(0, len(page.records), _CHUNK):
                chunk = self._chunk(page, low)
                self._done += len(chunk.records)
                self._last = chunk.cursor
                yield chunk
            if page.records:
                continue
            if self._poll is None:
                return
            await self._clock.sleep(self._poll)

    def progress(self) -> Progress:
        """Tell how many rows were read."""
        return Progress(self._done, None)

    async def close(self) -> None:
        """Close the database."""
        await self._connection.close()

    def _chunk(self, page: _Page, low: int) -> Chunk:
        high = low + _CHUNK
        keys = page.keys[low:high]
        return Chunk(
            page.records[low:high],
            keys[-1],
            size=sum(page.sizes[low:high]),
            failed=[index - low for index in page.failed if low <= index < high],
            cursors=keys.__getitem__,
            position=lambda index: f"{self._statements.cursor}={keys[index]!r}",
        )

    # --- in the connection's thread ---

    def _check(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute(self._statements.first, {"upto": self._upto}).close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR:
                raise ConfigError(f"{self._who}: {error}") from None
            raise
        except sqlite3.ProgrammingError as error:
            raise ConfigError(f"{self._who}: {error}") from None

    def _page(self, connection: sqlite3.Connection) -> _Page:
        """Read the next rows: a page, or as many as fit its bytes."""
        page = _Page([], [], [], [])
        cursor = self._execute(connection)
        try:
            names = [column[0] for column in cursor.description][:-1]
            size = 0
            for row in self._rows(cursor):
                size += self._add(page, names, row)
                if size >= _PAGE_BYTES:
                    break
        finally:
            cursor.close()
        # Rows without a key come before all others, or, once there is a cursor, not at all.
        if not page.records and connection.execute(self._statements.nulls).fetchone() is not None:
            raise self._unfit("a row has no")
        return page

    def _rows(self, cursor: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows behind the last one, each with a key of its own."""
        previous, may_repeat = self._last, True
        for row in cursor:
            value = row[-1]
            if value is None or isinstance(value, bytes):
                raise self._unfit("a row has no" if value is None else "a row has a blob as")
            if value != previous:
                yield row
            elif not may_repeat:
                raise self._unfit("several rows have", value)
            previous, may_repeat = value, False

    def _unfit(self, what: str, value: Any = None) -> StageError:
        found = self._statements.cursor if value is None else f"{self._statements.cursor} = {value!r}"
        way = "choose as `cursor` a column of numbers or texts that is unique, never NULL, and grows"
        return StageError(f"{self._who}: {what} {found}; {way}")

    def _execute(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        if self._last is None:
            return connection.execute(self._statements.first, {"upto": self._upto})
        return connection.execute(self._statements.following, {"last": self._last, "upto": self._upto})

    def _add(self, page: _Page, names: list[str], row: tuple[Any, ...]) -> int:
        """Add a row to the page and return its bytes."""
        size = 8 * len(row) + sum(len(value) for value in row[:-1] if isinstance(value, str | bytes))
        record: Any = dict(zip(names, row, strict=False))
        if size > self._max_record:
            text = f"the row is {size} bytes, over max_record ({self._max_record})"
            page.failed.append(len(page.records))
            record = Failed({self._statements.cursor: row[-1]}, RecordError(text))
        page.records.append(record)
        page.keys.append(row[-1])
        page.sizes.append(size)
        return size
