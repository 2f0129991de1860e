"""Comma separated values."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import chain
from typing import Annotated, Any

import msgspec
from msgspec import Meta, structs

from pipeline.errors import RecordError, RecordErrors, StateError
from pipeline.stage import Parting, SinkContext, key
from stages.sinks.files import FileSink
from stages.sinks.format import Format, one_by_one
from stages.sinks.jsonl import JsonlFormat

__all__ = ("Csv", "CsvFormat")


class Csv(FileSink, kw_only=True):
    """Append each record to a CSV file, a row each.

    Exactly once with a source that replays. The columns are those of the first record unless they are given; a record
    with any other field fails by itself, and a field that is missing or None is left empty. True and False are written
    in small letters, dates in ISO 8601, and nested values as JSON.
    """

    columns: Annotated[list[str] | None, key("Fields to write, in order; the first record's when left out.")] = None
    delimiter: Annotated[str, Meta(min_length=1, max_length=1), key("Character between values.")] = ","
    header: Annotated[bool, key("Begin each file with the names of the columns.")] = True
    escape_formulas: Annotated[
        bool, key("Put an apostrophe before text that a spreadsheet would take for a formula.")
    ] = False

    def format(self, context: SinkContext) -> Format:
        """Return how records become rows."""
        return CsvFormat(self.columns, self.delimiter, self.header, self.escape_formulas)

    def parting(self, merge: bool) -> Parting | str:
        """Return that partitions have files of their own; merged, they need columns that all of them know."""
        found = super().parting(merge)
        if found is Parting.MERGED and self.columns is None:
            return "the columns come from the first record, which only one worker sees; name them (columns)"
        return found

    def for_partition(self, number: int, lineage: str, hidden: bool) -> FileSink:
        """Return the sink of a partition; a hidden file has no header, for it is written once, before all of them."""
        made = super().for_partition(number, lineage, hidden)
        return structs.replace(made, header=False) if hidden else made

    def problems(self) -> Iterable[tuple[str, str]]:
        """Say what is wrong with the keys."""
        yield from super().problems()
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            yield "columns", "a column is named twice"
        if self.columns == []:
            yield "columns", "expected at least one column"
        if self.delimiter in '"\r\n':
            yield "delimiter", f"{self.delimiter!r} can't stand between values"


class CsvFormat(Format):
    """Rows of values in the order of the columns, in UTF-8, each ended by a newline."""

    def __init__(self, columns: Sequence[str] | None, delimiter: str, header: bool, escape_formulas: bool) -> None:
        self._given = columns is not None
        self._header = header
        self._escape = escape_formulas
        self._delimiter = delimiter
        self._columns: tuple[str, ...] = ()
        self._text = StringIO()
        self._rows = csv.writer(self._text, delimiter=delimiter, lineterminator="\n")
        # The quickest dialect leaves a lone carriage return bare, which readers take for the end of a row.
        self._quoted = csv.writer(self._text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        self._json = JsonlFormat()
        self._set_columns(columns or ())

    def encode(self, records: Sequence[Any]) -> bytes:
        """Return the rows of records."""
        if not self._columns:
            self._set_columns(_first_columns(records))
        try:
            cells = self._cells(records)
            text = self._unquoted(cells) or self._write(self._rows, cells)
            if "\r" not in text:
                return text.encode()
        except (RecordError, TypeError, ValueError, OverflowError, RecursionError):
            pass
        return one_by_one(records, self._row)

    def preamble(self) -> bytes:
        """Return the names of the columns as a row."""
        return self._line(self._columns) if self._header else b""

    def whole(self, blocks: Iterable[bytes]) -> int:
        """Return how many bytes are whole rows; a newline between quotes ends none."""
        whole = read = quotes = 0
        for block in blocks:
            for line in _lines(block):
                read += len(line)
                quotes += line.count(b'"')
                if line.endswith(b"\n") and quotes % 2 == 0:
                    whole = read
        return whole

    def memory(self) -> Any:
        """Return the columns."""
        return list(self._columns)

    def recall(self, memory: Any) -> None:
        """Go on with the columns of what was written; columns that are given stay."""
        if not self._given:
            self._set_columns(memory or ())

    def learn(self, head: bytes, path: str) -> None:
        """Take the columns from the header of a file that is written behind."""
        if not self._header:
            return
        text = head.decode(errors="replace")
        found = tuple(next(csv.reader(StringIO(text), delimiter=self._delimiter), ()))
        if self._columns and found != self._columns:
            raise StateError(
                f"{path}: expected the columns {', '.join(self._columns)}, found {', '.join(found)[:200]}; "
                "give it these columns, or choose another path"
            )
        self._set_columns(found)

    def _set_columns(self, columns: Iterable[str]) -> None:
        self._columns = tuple(columns)
        self._names = frozenset(self._columns)
        self._row_format = self._delimiter.replace("%", "%%").join(["%s"] * len(self._columns)) + "\n"

    def _cells(self, records: Sequence[Any]) -> list[list[Any]]:
        columns = self._columns
        if columns and not self._escape and set(map(type, records)) == {dict}:
            rows = [list(record.values()) for record in records if tuple(record) == columns]
            if len(rows) == len(records) and _PLAIN.issuperset(map(type, chain.from_iterable(rows))):
                return rows
        return [self._cells_of(record) for record in records]

    def _unquoted(self, rows: Sequence[list[Any]]) -> str:
        """Return the rows as text if none of them needs a quote, which is quicker to find out afterwards."""
        gaps = len(self._columns) - 1
        if not gaps:
            return ""
        text = "".join([self._row_format % tuple(["" if cell is None else cell for cell in row]) for row in rows])
        as_many = text.count(self._delimiter) == gaps * len(rows) and text.count("\n") == len(rows)
        return text if as_many and '"' not in text else ""

    def _cells_of(self, record: Any) -> list[Any]:
        fields = _fields(record)
        if fields is None:
            raise RecordError(f"expected a record with fields, found {type(record).__name__}")
        if not self._columns:
            raise RecordError("has no field, and no columns are known yet; name them in columns")
        if not self._names.issuperset(fields):
            unknown = next(name for name in fields if name not in self._names)
            raise RecordError(f"field {unknown!r} is no column; name it in columns, or drop it before the sink")
        return [self._cell(fields.get(name), name) for name in self._columns]

    def _row(self, record: Any) -> bytes:
        return self._line(self._cells_of(record))

    def _cell(self, value: Any, name: str) -> Any:
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None or type(value) in (int, float):
            return value
        if type(value) is not str:
            value = self._as_text(value, name)
        return "'" + value if self._escape and value.startswith(_FORMULA) else value

    def _as_text(self, value: Any, name: str) -> str:
        plain = msgspec.to_builtins(value)
        if isinstance(plain, str):
            return plain
        try:
            return self._json.encode([plain])[:-1].decode()
        except RecordErrors as errors:
            raise RecordError(f"field {name!r}: {errors.errors[0]}") from None

    def _line(self, cells: Sequence[Any]) -> bytes:
        awkward = any(type(cell) is str and "\r" in cell for cell in cells)
        return self._write(self._quoted if awkward else self._rows, [cells]).encode()

    def _write(self, writer: Any, rows: Sequence[Sequence[Any]]) -> str:
        self._text.seek(0)
        self._text.truncate()
        writer.writerows(rows)
        return self._text.getvalue()


_PLAIN = frozenset({str, int, float, type(None)})
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _fields(record: Any) -> dict[str, Any] | None:
    if isinstance(record, dict):
        return record  # pyright: ignore[reportUnknownVariableType]
    return msgspec.structs.asdict(record) if isinstance(record, msgspec.Struct) else None


def _first_columns(records: Sequence[Any]) -> tuple[str, ...]:
    for record in records:
        fields = _fields(record)
        if fields and all(isinstance(name, str) for name in fields):
            return tuple(fields)
    return ()


def _lines(block: bytes) -> Iterable[bytes]:
    parts = block.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
