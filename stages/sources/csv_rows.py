"""Decodes delimited text: all rows of a run at once when it is well formed, else with care for each line."""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from stages.sources.csv_columns import Columns
from stages.sources.formats import Decoded, bad_record, split_lines

__all__ = ("Rows",)

ENOUGH = 1000
"""Records after which a run that needs care is handed over; the rest of it comes again."""


class _Bad(Exception):
    """A record is bad, whatever follows."""


class _Open(Exception):
    """A quoted field is still open where the lines end."""


class Rows:
    """Decodes the rows of one file after the other; knows the header of the one at hand."""

    def __init__(
        self,
        encoding: str,
        delimiter: str,
        quote: str,
        header: bool | list[str],
        types: Mapping[str, str],
        expected: Collection[str],
        nulls: frozenset[str],
        declared: Any,
        max_record: int,
    ) -> None:
        self._encoding = encoding
        self._delimiter = delimiter
        self._quote = quote
        self._header = header
        self._types = types
        self._expected = expected
        self._nulls = nulls
        self._typed: Any = None if declared is Any else list[declared]
        self._max_record = max_record
        self._names: list[str] = []
        self._columns = Columns((), {}, nulls)
        self.heads = not isinstance(header, list)
        if isinstance(header, list):
            self._name(header)

    def begin(self, raw: bytes, last: bool) -> tuple[int, int] | None:
        """Read the header, or count the columns of the first row where there is none."""
        feed = _Feed(split_lines(raw), self._encoding, self._quote, self._max_record)
        for row in self._careful(feed):
            if isinstance(row, _Open) and not last:
                return None
            if self._header is False:
                if isinstance(row, Exception):
                    continue
                self._name([f"column_{number}" for number in range(1, len(row) + 1)])
                return 0, 0
            if isinstance(row, Exception):
                raise ValueError(f"line {feed.start + 1}, the header, can't be read: {_reason(row)}")
            self._name(row)
            return sum(map(len, feed.lines[: feed.at])), feed.at
        if len(raw) > self._max_record:
            raise ValueError(f"its first {len(raw):,} bytes hold no row")
        return (0, 0) if last else None

    def decode(self, raw: bytes, last: bool) -> Decoded:
        """Decode rows that are complete."""
        records = self._at_once(raw)
        if records is not None:
            return Decoded(records, len(raw), len(records))
        return self._one_by_one(raw, last)

    def saved(self) -> list[str]:
        """Return the names of the fields."""
        return self._names

    def restore(self, saved: Any) -> None:
        """Take the names of the fields."""
        self._name(saved)

    def _name(self, names: list[str]) -> None:
        twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
        if twice is not None:
            raise ValueError(
                f"the header names {twice!r} twice; rename one, or read the file with header: false,"
                " which names the fields column_1, column_2 and so on"
            )
        missing = next((name for name in self._expected if name not in names), None)
        if missing is not None:
            raise ValueError(f"there is no field {missing!r} to give a type; the header names {', '.join(names)}")
        self._names = names
        self._columns = Columns(names, self._types, self._nulls)

    def _reader(self, lines: Iterator[str]) -> Any:
        if not self._quote:
            return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE, strict=True)
        return csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True)

    # --- all at once --------------------------------------------------------------------------------------------------

    def _at_once(self, raw: bytes) -> list[Any] | None:
        """Return the records when each line is one good record, None otherwise."""
        if b"\0" in raw or not self._names:
            return None
        try:
            reader = self._reader(io.StringIO(raw.decode(self._encoding), newline="\n"))
            rows: list[list[str]] = list(reader)
            if reader.line_num != len(rows) or set(map(len, rows)) != {len(self._names)}:
                return None
            return self._records(self._columns.values(rows))
        except (csv.Error, ValueError, KeyError):
            return None

    def _records(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        names = self._names
        records = [dict(zip(names, row, strict=False)) for row in rows]
        return records if self._typed is None else msgspec.convert(records, self._typed)

    # --- with care ----------------------------------------------------------------------------------------------------

    def _one_by_one(self, raw: bytes, last: bool) -> Decoded:
        feed = _Feed(split_lines(raw), self._encoding, self._quote, self._max_record)
        records: list[Any] = []
        failed: list[int] = []
        starts: list[int] = []
        for row in self._careful(feed):
            if isinstance(row, _Open) and not last:
                feed.at = feed.start
                break
            starts.append(feed.start)
            try:
                records.append(self._record(feed, row))
            except _Bad as bad:
                failed.append(len(records))
                records.append(bad_record(b"".join(feed.lines[feed.start : feed.at]), str(bad)))
            if len(records) == ENOUGH:
                break
        used = sum(map(len, feed.lines[: feed.at]))
        return Decoded(records, used, feed.at, failed, starts)

    def _careful(self, feed: "_Feed") -> Iterator[list[str] | Exception]:
        """Yield each row, or why it can't be read: then the feed is at the line behind its first one."""
        reader = self._reader(feed)
        while True:
            feed.begin()
            try:
                row = next(reader, None)
            except (_Open, _Bad, csv.Error, UnicodeDecodeError) as error:
                feed.retreat()
                reader = self._reader(feed)
                yield error
                continue
            if row is None:
                return
            if row:
                yield row

    def _record(self, feed: "_Feed", row: list[str] | Exception) -> Any:
        if isinstance(row, Exception):
            raise _Bad(_reason(row))
        if len(row) != len(self._names):
            feed.retreat()
            raise _Bad(f"{len(row)} field{'s' * (len(row) != 1)}; the header has {len(self._names)}")
        try:
            return self._records([self._columns.row(row)])[0]
        except ValueError as error:
            raise _Bad(str(error).removesuffix(" - at `$[0]`").replace("`$[0].", "`$.")) from None


class _Feed(Iterator[str]):
    """Hands lines to a reader. It asks for one, and for more while a quoted field is open.

    Then it gets all lines up to the next one with a quote: no other can close the field.
    """

    def __init__(self, lines: list[bytes], encoding: str, quote: str, max_record: int) -> None:
        self.lines = lines
        self.start = 0
        self.at = 0
        self._encoding = encoding
        self._quote = quote.encode()
        self._max_record = max_record
        self._size = 0
        self._fresh = True

    def begin(self) -> None:
        """Take note that the line that is asked for next begins a record."""
        self.start = self.at
        self._size = 0
        self._fresh = True

    def retreat(self) -> None:
        """Go back behind the first line of the record."""
        self.at = self.start + 1

    def __next__(self) -> str:
        low = self.at
        if self._fresh:
            if low == len(self.lines):
                raise StopIteration
            self._fresh = False
            self._size = len(self.lines[low])
            self.at = low + 1
        else:
            self.at = self._closing(low) + 1
        text = b"".join(self.lines[low : self.at])
        if b"\0" in text:
            raise _Bad("it holds a NUL")
        return text.decode(self._encoding)

    def _closing(self, low: int) -> int:
        for at in range(low, len(self.lines)):
            self._size += len(self.lines[at])
            if self._size > self._max_record:
                raise _Bad(f"a quoted field is not closed within {self._max_record:,} bytes")
            if self._quote in self.lines[at]:
                return at
        raise _Open("a quoted field is not closed")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not valid {error.encoding}: {error.reason}"
    if isinstance(error, csv.Error) and "new-line" in str(error):
        return "a carriage return outside of quotes"
    return str(error)
