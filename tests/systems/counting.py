"""What goes to a real SQLite database: each bulk statement, its rows, and the transaction it was in."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Bulk", "Statements")


@dataclass(frozen=True, slots=True)
class Bulk:
    """One bulk statement and how many rows it brought; ``transaction`` counts the transactions before it."""

    sql: str
    rows: int
    transaction: int


@dataclass
class Statements:
    """The statements of all connections of a test, in order. Its connections are real ones."""

    bulks: list[Bulk] = field(default_factory=list[Bulk])
    singles: list[str] = field(default_factory=list[str])
    transactions: int = 0
    _breaking: tuple[str, int] | None = None

    def break_into(self, table: str, number: int) -> None:
        """Let one bulk insert into a table, counted from 1, break off half done, as if the lock was lost."""
        self._breaking = (table, number)

    def breaks(self) -> bool:
        """Tell, once, whether the bulk statement that was told last is to break off."""
        if self._breaking is None or len(self._into(self._breaking[0])) != self._breaking[1]:
            return False
        self._breaking = None
        return True

    def rows_of(self, table: str) -> list[int]:
        """Return how many rows each bulk insert into a table brought."""
        return [bulk.rows for bulk in self._into(table)]

    def transactions_of(self, table: str) -> set[int]:
        """Return the transactions that held bulk inserts into a table."""
        return {bulk.transaction for bulk in self._into(table)}

    def singles_of(self, table: str) -> list[str]:
        """Return the inserts into a table that brought one row."""
        return [sql for sql in self.singles if sql.startswith(f'INSERT INTO "{table}"')]

    def connection(self) -> type[sqlite3.Connection]:
        """Return the class of connections that are counted."""
        told = self

        class Counted(sqlite3.Connection):
            def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
                told.transactions += sql.startswith("BEGIN")
                rows = sql.count("(?")
                if rows < 2:
                    told.singles.append(sql)
                    return super().execute(sql, *arguments)
                told.bulks.append(Bulk(sql, rows, told.transactions))
                if told.breaks():
                    raise _locked()
                return super().execute(sql, *arguments)

            def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
                rows = list(rows)
                told.bulks.append(Bulk(sql, len(rows), told.transactions))
                if told.breaks():
                    super().executemany(sql, rows[: len(rows) // 2])
                    raise _locked()
                return super().executemany(sql, rows)

        return Counted

    def _into(self, table: str) -> list[Bulk]:
        return [bulk for bulk in self.bulks if bulk.sql.startswith(f'INSERT INTO "{table}"')]


def _locked() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error
