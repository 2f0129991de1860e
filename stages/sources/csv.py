"""Rows of delimited text with a header."""

import csv
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from pipeline.stage import SourceContext, key
from stages.sources.csv_rows import Rows
from stages.sources.dividing import Rows as RowEnds
from stages.sources.files import FileSource, encoding_of
from stages.sources.formats import Format
from stages.sources.schema import record_type, scalar_types, schema_problems

__all__ = ("Csv",)

_TYPES = ("int", "float", "str", "bool")


class Csv(FileSource, kw_only=True):
    """Read rows of delimited text, each a record of its fields; blank lines are skipped.

    A row of the wrong width, or with a value that is not of its type, is a bad record of its own. When a quoted field
    is not properly closed, or a row over several lines has the wrong width, its first line is the bad record, and
    reading goes on at the next line.
    """

    delimiter: Annotated[str, key("One character between fields.")] = ","
    quote: Annotated[str, key("One character around fields that hold delimiters or newlines; empty for none.")] = '"'
    header: Annotated[
        bool | list[str],
        key("Whether the first line names the fields; false names them column_1, column_2 and so on; or their names."),
    ] = True
    types: Annotated[
        dict[str, Literal["int", "float", "str", "bool"] | type[Any]], key("Field: int, float, str or bool.")
    ] = msgspec.field(default_factory=dict[str, Any])
    null_values: Annotated[list[str], key("Texts that stand for no value, like NA.")] = msgspec.field(
        default_factory=list[str]
    )
    schema: Annotated[
        dict[str, str] | type[msgspec.Struct] | None,
        key("Field: type (int, float, str, bool; ? behind it: may be missing), for typed records."),
    ] = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Return what is wrong with the keys."""
        yield from super().problems()
        if not _is_mark(self.delimiter):
            yield "delimiter", f"expected one ASCII character, like ',' or a tab, not {self.delimiter!r}"
        if self.quote and (not _is_mark(self.quote) or self.quote == self.delimiter):
            yield "quote", f"expected one ASCII character other than the delimiter, or nothing, not {self.quote!r}"
        if isinstance(self.header, list) and (not self.header or len(set(self.header)) < len(self.header)):
            yield "header", "expected the names of all fields, each once"
        for field, declared in self.types.items():
            if _name_of(declared) not in _TYPES:
                yield "types", f"field {field!r} has the type {_name_of(declared)!r}; expected int, float, str or bool"
        yield from (("schema", text) for text in schema_problems(self.schema))

    def identity(self) -> Mapping[str, Any]:
        """Return the path and what decides where a record ends and how its fields are called."""
        keys = {"format": "csv", "delimiter": self.delimiter, "quote": self.quote, "header": self.header}
        return {**super().identity(), **keys}

    def record_type(self) -> Any:
        """Return the type of the schema."""
        return record_type(self.schema)

    def rows(self) -> RowEnds:
        """Return how rows are told from lines."""
        return RowEnds(self.quote.encode(), self.delimiter, encoding_of(self.encoding))

    def format(self, context: SourceContext) -> Format:
        """Return what turns lines into records."""
        # The limit belongs to the process; the module's own, 131,072, is no limit of ours.
        csv.field_size_limit(max(csv.field_size_limit(), context.max_record))
        declared = record_type(self.schema)
        types = {**scalar_types(declared), **{field: _name_of(kind) for field, kind in self.types.items()}}
        return Rows(
            encoding_of(self.encoding),
            self.delimiter,
            self.quote,
            self.header,
            types,
            self.types,
            frozenset(self.null_values),
            declared,
            context.max_record,
        )


def _is_mark(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n\0"


def _name_of(declared: str | type[Any]) -> str:
    return declared if isinstance(declared, str) else declared.__name__
