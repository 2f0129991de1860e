"""The table of an SQLite sink: its columns as they are, what a batch needs them to be, and its statements."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import ne
from typing import Any

from pipeline.errors import ConfigError, RecordError, RecordErrors
from pipeline.finite import sums_up
from stages.sinks.sqlite_columns import (
    ANY,
    PLAIN,
    Column,
    affinity_of,
    declared_for,
    fold,
    keeps,
    keeps_all,
    to_sql,
)
from stages.sinks.sqlite_rows import Rows, kinds_of, rows_of
from stages.sqlite_connection import Lengthy, quoted

__all__ = ("Table",)

_MAX_COLUMNS = 2000  # SQLite's own default
_MAX_REBUILT = 1_000_000  # rows; copying these takes about a second, and nobody else can write meanwhile
_REBUILT = "_pipeline_rebuilt"
_PLACES = 500  # values a statement; more of them gain nothing, and every build of SQLite takes 999
# What one row alone can be at fault for.
_FAULTS = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)


@dataclass(slots=True)
class _Fit:
    """What a batch needs: new columns, columns that have to keep any value, and the rows."""

    groups: list[Rows]
    added: dict[str, tuple[str, list[Sequence[Any]]]] = field(
        default_factory=dict[str, tuple[str, list[Sequence[Any]]]]
    )
    widened: set[str] = field(default_factory=set[str])


class Table:
    """A table, as one connection knows it. Every method runs within a unit of the connection's work.

    ``columns`` are the only fields written; ``key`` makes a record replace the row with the same key; ``create`` lets
    the table be made, and gain columns.
    """

    def __init__(
        self, who: str, name: str, columns: Sequence[str] | None, key: Sequence[str] | None, create: bool
    ) -> None:
        self._who = who
        self._name = name
        self._selected = columns
        self._key = tuple(map(fold, key or ()))
        self._key_names = tuple(key or ())
        self._create = create
        self._columns: dict[str, Column] | None = None
        self._keyed = False
        # What follows from the columns for the fields of a group: most batches have those of the one before.
        self._inserts: dict[tuple[tuple[str, ...], int], str] = {}
        self._known: dict[tuple[str, ...], list[Column]] = {}

    def verify(self, connection: sqlite3.Connection) -> None:
        """See that the table fits the keys, without changing anything.

        :raises ConfigError: when it is missing, or lacks a column or a unique key, and may not be changed.
        """
        columns = self._load(connection)
        if self._create:
            return
        if not columns:
            raise ConfigError(f"{self._who}: no table {self._name!r}; make it, or leave out `create: false`")
        for name in (*(self._selected or ()), *self._key_names):
            if fold(name) not in columns:
                raise ConfigError(f"{self._who}: table {self._name!r} has no column {name!r}; it has {_list(columns)}")
        if self._key and not self._has_key(connection, columns):
            raise ConfigError(f"{self._who}: table {self._name!r} has no unique index on {_list(self._key_names)}")

    def exists(self, connection: sqlite3.Connection) -> bool:
        """Tell whether there is a table."""
        return bool(self._load(connection))

    def rows(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the table exists and has any row."""
        if not self.exists(connection):
            return False
        return connection.execute(f"SELECT 1 FROM {quoted(self._name)} LIMIT 1").fetchone() is not None

    def empty(self, connection: sqlite3.Connection) -> None:
        """Delete every row."""
        if self._load(connection):
            connection.execute(f"DELETE FROM {quoted(self._name)}")

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Make the unique index that the key needs, where there is a table already.

        :raises ConfigError: when rows of the table have the same key.
        """
        if self._key and set(self._key) <= self._load(connection).keys():
            self._ensure_key(connection, self._load(connection))

    def refuse_doubles(self, connection: sqlite3.Connection) -> None:
        """See, without changing anything, that `prepare` could make the unique index.

        :raises ConfigError: when rows of the table have the same key.
        """
        columns = self._load(connection)
        if not self._key or not set(self._key) <= columns.keys() or self._has_key(connection, columns):
            return
        names = [quoted(columns[name].name) for name in self._key]
        known = " AND ".join(
            f"{name} IS NOT NULL" for name in names
        )  # to a unique index no NULL is the same as another
        found = connection.execute(
            f"SELECT 1 FROM {quoted(self._name)} WHERE {known} GROUP BY {', '.join(names)} HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if found is not None:
            raise self._doubles()

    def forget(self) -> None:
        """Take note that a transaction was rolled back: what it made of the table is gone."""
        self._columns = None
        self._keyed = False
        self._forget_columns()

    def write(self, connection: sqlite3.Connection, records: list[Any], *, brief: bool = False) -> None:
        """Insert the records, or replace what has their key, in order; makes and widens columns as they need it.

        ``brief``: does no more than that.

        :raises RecordErrors: names every record that can't be written; then the transaction is to be rolled back.
        :raises Lengthy: when there is more to do than is brief; then too.
        """
        errors: dict[int, Exception] = {}
        fit = self._fit(connection, records, errors)
        if errors:
            raise RecordErrors(errors)
        if brief and (fit.added or fit.widened or (self._key and not self._keyed)):
            raise Lengthy
        self._shape(connection, fit)
        try:
            for group in fit.groups:
                self._insert_all(connection, group)
        except _FAULTS as error:
            if brief:
                raise Lengthy from error
            culprits = self._culprits(connection, fit)
            if not culprits:
                raise
            raise RecordErrors(culprits) from error

    # --- what the batch needs ---

    def _fit(self, connection: sqlite3.Connection, records: list[Any], errors: dict[int, Exception]) -> _Fit:
        columns = self._load(connection)
        # Where a missing field is not the same as None, records of different fields need statements of their own.
        union = not self._key and not any(column.has_default for column in columns.values())
        fit = _Fit(rows_of(records, self._selected, union, errors))
        for group in fit.groups:
            self._check_key(group, errors)
            found = self._columns_for(group, fit, errors)
            if found is not None:
                self._fit_values(connection, group, found, fit, errors)
        return fit

    def _columns_for(self, group: Rows, fit: _Fit, errors: dict[int, Exception]) -> Sequence[Column | None] | None:
        """Return the columns of a group's fields, None for one to be added; nothing when a field can't be one."""
        known = self._known.get(group.fields)
        if known is not None:
            return known
        if not self._check_names(group, fit, errors):
            return None
        columns = self._load(connection=None)
        found = [columns.get(fold(name)) for name in group.fields]
        known = [column for column in found if column is not None]
        if len(known) == len(found):
            self._known[group.fields] = known
        return found

    def _check_key(self, group: Rows, errors: dict[int, Exception]) -> None:
        places = {fold(name): place for place, name in enumerate(group.fields) if type(name) is str}
        for name in self._key:
            column = group.column(places[name]) if name in places else [None] * len(group.indexes)
            if type(None) in kinds_of(column):
                for index, value in zip(group.indexes, column, strict=True):
                    if value is None:
                        errors[index] = RecordError(f"field {name!r} is missing; it is part of the key")

    def _check_names(self, group: Rows, fit: _Fit, errors: dict[int, Exception]) -> bool:
        """Note who has a field that can't be a column; tell whether there was none."""
        columns = self._load(connection=None)
        before = len(errors)
        taken: set[str] = set()
        for place, name in enumerate(group.fields):
            fault = self._name_fault(name, taken, columns, fit)
            if fault:
                for row, index in enumerate(group.indexes):
                    if not group.absent(row, place):
                        errors[index] = RecordError(fault)
            elif fold(name) not in columns:
                fit.added.setdefault(fold(name), (name, []))
            if type(name) is str:
                taken.add(fold(name))
        return len(errors) == before

    def _name_fault(self, name: Any, taken: set[str], columns: dict[str, Column], fit: _Fit) -> str | None:
        if type(name) is not str:
            return f"field {name!r}: a column is named by a text"
        if fold(name) in taken:
            return f"field {name!r}: two fields differ only in upper and lower case, which is one column to SQLite"
        if fold(name) in columns or fold(name) in fit.added:
            return None
        if not self._create:
            return f"unknown field {name!r}: table {self._name!r} has no such column"
        if not name or "\0" in name or not _encodes(name):
            return f"field {name!r} can't be the name of a column"
        full = len(columns) + len(fit.added) >= _MAX_COLUMNS
        return f"field {name!r}: table {self._name!r} would have over {_MAX_COLUMNS} columns" if full else None

    def _fit_values(
        self,
        connection: sqlite3.Connection,
        group: Rows,
        columns: Sequence[Column | None],
        fit: _Fit,
        errors: dict[int, Exception],
    ) -> None:
        for place, (name, column) in enumerate(zip(group.fields, columns, strict=True)):
            values = group.column(place)
            types = kinds_of(values)
            if not types <= PLAIN:
                values = _converted(name, values, group.indexes, errors)
                types = kinds_of(values)
                group.put(place, values)
            if float in types and not sums_up(values) and any(map(ne, values, values)):
                _note_nan(name, values, group.indexes, errors)
            if column is None:
                fit.added[fold(name)][1].append(values)
            elif not keeps_all(column.affinity, values, types):
                self._widen_or_note(connection, column, values, group, fit, errors)

    def _widen_or_note(
        self,
        connection: sqlite3.Connection,
        column: Column,
        values: Sequence[Any],
        group: Rows,
        fit: _Fit,
        errors: dict[int, Exception],
    ) -> None:
        if fold(column.name) in fit.widened or self._may_rebuild(connection):
            fit.widened.add(fold(column.name))
            return
        for index, value in zip(group.indexes, values, strict=True):
            if not keeps(column.affinity, value):
                errors[index] = RecordError(
                    f"field {column.name!r}: a column of type {column.declared!r} would change {_shown(value)}"
                )

    # --- the table's shape ---

    def _load(self, connection: sqlite3.Connection | None) -> dict[str, Column]:
        if self._columns is None:
            if connection is None:
                return {}
            self._columns = {fold(column.name): column for column in _columns_of(connection, self._name)}
        return self._columns

    def _shape(self, connection: sqlite3.Connection, fit: _Fit) -> None:
        """Make the table and its columns what the batch needs."""
        columns = self._load(connection)
        if fit.added:
            new = [_column(name, declared_for(values)) for name, values in fit.added.values()]
            if not columns:
                connection.execute(_create(self._name, new))
            for column in new if columns else ():
                connection.execute(f"ALTER TABLE {quoted(self._name)} ADD COLUMN {_definition(column)}")
            columns.update((fold(column.name), column) for column in new)
        if fit.widened:
            self._rebuild(connection, columns, fit.widened)
        if self._key and not self._keyed:
            self._ensure_key(connection, columns)

    def _ensure_key(self, connection: sqlite3.Connection, columns: dict[str, Column]) -> None:
        if not self._has_key(connection, columns):
            index = quoted(f"{self._name}_{'_'.join(self._key_names)}_key")
            names = ", ".join(quoted(columns[name].name) for name in self._key)
            try:
                connection.execute(f"CREATE UNIQUE INDEX {index} ON {quoted(self._name)} ({names})")
            except sqlite3.IntegrityError as error:
                raise self._doubles() from error
        self._keyed = True

    def _doubles(self) -> ConfigError:
        text = f"table {self._name!r} has rows with the same {_list(self._key_names)}"
        return ConfigError(f"{self._who}: {text}; take out the doubles, or choose another key")

    def _has_key(self, connection: sqlite3.Connection, columns: dict[str, Column]) -> bool:
        primary = {name for name, column in columns.items() if column.key}
        return primary == set(self._key) or any(
            names == set(self._key) for names in _unique_indexes(connection, self._name)
        )

    def _may_rebuild(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the table is just as this sink makes one, and not too large to be copied."""
        if not self._create:
            return False
        table, name = quoted(self._name), self._name
        found = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)
        ).fetchone()
        if found is None or found[0] != _create(name, self._load(connection).values()):
            return False
        used = connection.execute("SELECT 1 FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone()
        rows: int | None = connection.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
        return used is None and (rows or 0) <= _MAX_REBUILT

    def _rebuild(self, connection: sqlite3.Connection, columns: dict[str, Column], widened: set[str]) -> None:
        """Copy the table into one whose columns keep any value; SQLite can't change the type of a column."""
        for name in widened:
            columns[name] = _column(columns[name].name, ANY)
        indexes = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (self._name,)
        ).fetchall()
        table, copy = quoted(self._name), quoted(_REBUILT)
        rowid = next((name for name in ("rowid", "_rowid_", "oid") if name not in columns), None)
        names = ", ".join([*([rowid] if rowid else []), *(quoted(column.name) for column in columns.values())])
        connection.execute(_create(_REBUILT, columns.values()))
        connection.execute(f"INSERT INTO {copy} ({names}) SELECT {names} FROM {table} ORDER BY {rowid or 1}")
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE {copy} RENAME TO {table}")
        for (sql,) in indexes:
            connection.execute(sql)
        self._forget_columns()

    def _forget_columns(self) -> None:
        self._inserts.clear()
        self._known.clear()

    # --- rows ---

    def _insert_all(self, connection: sqlite3.Connection, group: Rows) -> None:
        # A statement gives the interpreter's lock away and asks for it back, so one for many rows: the loop's thread
        # wants it too. They are inserted in the same order, and a row that can't be is found by `_culprits`.
        width, count = len(group.fields), len(group.indexes)
        together = _PLACES // width
        whole = count - count % together if together > 1 else 0
        if whole:
            sql, places = self._insert(group.fields, together), together * width
            for at in range(0, whole * width, places):
                connection.execute(sql, group.values[at : at + places])
        if whole < count:
            connection.executemany(self._insert(group.fields), group.rows(whole))

    def _insert(self, fields: tuple[str, ...], rows: int = 1) -> str:
        sql = self._inserts.get((fields, rows))
        if sql is None:
            columns = self._load(connection=None)
            names = [quoted(columns[fold(name)].name) for name in fields]
            places = f"({', '.join('?' * len(names))})"
            into = f"INSERT INTO {quoted(self._name)} ({', '.join(names)})"
            sql = f"{into} VALUES {', '.join([places] * rows)}{self._on_conflict(fields)}"
            self._inserts[fields, rows] = sql
        return sql

    def _on_conflict(self, fields: tuple[str, ...]) -> str:
        if not self._key:
            return ""
        columns = self._load(connection=None)
        key = ", ".join(quoted(columns[name].name) for name in self._key)
        others = [quoted(columns[fold(name)].name) for name in fields if fold(name) not in self._key]
        update = ", ".join(f"{name} = excluded.{name}" for name in others)
        return f" ON CONFLICT ({key}) DO {f'UPDATE SET {update}' if update else 'NOTHING'}"

    def _culprits(self, connection: sqlite3.Connection, fit: _Fit) -> dict[int, Exception]:
        """Insert row by row to find out which ones can't be."""
        # From the start again: a savepoint would do, and would slow down every batch that has no culprits.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        self.forget()
        self._shape(connection, fit)
        errors: dict[int, Exception] = {}
        for group in fit.groups:
            sql = self._insert(group.fields)
            for index, row in zip(group.indexes, group.rows(), strict=True):
                try:
                    connection.execute(sql, row)
                except _FAULTS as error:
                    errors[index] = RecordError(_fault(group.fields, row, error))
                    if not connection.in_transaction:  # the table's own rules may end it: ON CONFLICT ROLLBACK
                        return errors
        return errors


def _columns_of(connection: sqlite3.Connection, table: str) -> Iterator[Column]:
    strict = False
    if sqlite3.sqlite_version_info >= (3, 37):
        found = connection.execute("SELECT strict FROM pragma_table_list(?) WHERE schema = 'main'", (table,)).fetchone()
        strict = found is not None and bool(found[0])
    rows = connection.execute("SELECT name, type, pk, dflt_value FROM pragma_table_info(?)", (table,))
    for name, declared, key, default in rows.fetchall():
        yield Column(name, declared, affinity_of(declared, strict), key, default is not None)


def _unique_indexes(connection: sqlite3.Connection, table: str) -> Iterator[set[str]]:
    names = connection.execute('SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (table,))
    for (name,) in names.fetchall():
        columns = connection.execute("SELECT name FROM pragma_index_info(?)", (name,)).fetchall()
        yield {fold(column) if column is not None else "" for (column,) in columns}


def _column(name: str, declared: str) -> Column:
    return Column(name, declared, affinity_of(declared))


def _definition(column: Column) -> str:
    return f"{quoted(column.name)} {column.declared}".rstrip()


def _create(table: str, columns: Iterable[Column]) -> str:
    return f"CREATE TABLE {quoted(table)} ({', '.join(map(_definition, columns))})"


def _converted(name: str, values: Sequence[Any], indexes: Sequence[int], errors: dict[int, Exception]) -> list[Any]:
    converted: list[Any] = []
    for index, value in zip(indexes, values, strict=True):
        try:
            converted.append(to_sql(value))
        except RecordError as error:
            errors[index] = RecordError(f"field {name!r}: {error}")
            converted.append(None)
    return converted


def _note_nan(name: str, values: Sequence[Any], indexes: Sequence[int], errors: dict[int, Exception]) -> None:
    for index, value in zip(indexes, values, strict=True):
        if value != value:
            errors[index] = RecordError(f"field {name!r}: SQLite has no nan, it would store NULL")


def _fault(fields: tuple[str, ...], row: tuple[Any, ...], error: Exception) -> str:
    for name, value in zip(fields, row, strict=True):
        if isinstance(error, OverflowError) and type(value) is int and not -(2**63) <= value < 2**63:
            return f"field {name!r}: {_shown(value)} is over 64 bits"
        if isinstance(error, UnicodeEncodeError) and isinstance(value, str) and not _encodes(value):
            return f"field {name!r}: the text holds a lone surrogate, which UTF-8 has no bytes for"
    return str(error)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    # Python refuses to write an integer of thousands of digits.
    text = (
        f"an integer of {value.bit_length()} bits" if type(value) is int and value.bit_length() > 256 else repr(value)
    )
    return text if len(text) <= 80 else text[:77] + "..."


def _list(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
