"""Plain lines of text."""

from collections.abc import Sequence
from typing import Annotated, Any

from pipeline.errors import RecordError
from pipeline.stage import SinkContext, key
from stages.sinks.files import FileSink
from stages.sinks.format import Format, one_by_one

__all__ = ("Lines", "LinesFormat")


class Lines(FileSink, kw_only=True):
    """Append one field of each record to a file, as a line of its own.

    Exactly once with a source that replays. A record whose field is missing, is no text or holds a line break fails by
    itself.
    """

    field: Annotated[str, key("Field that holds the line.")] = "line"

    def format(self, context: SinkContext) -> Format:
        """Return how records become lines."""
        return LinesFormat(self.field)


class LinesFormat(Format):
    """One field of each record, in UTF-8."""

    def __init__(self, field: str) -> None:
        self._field = field

    def encode(self, records: Sequence[Any]) -> bytes:
        """Return the lines of records."""
        field = self._field
        try:
            text = "\n".join([record[field] for record in records])
            if text.count("\n") == len(records) - 1:
                return (text + "\n").encode()
        except (LookupError, TypeError, ValueError):
            pass
        return one_by_one(records, self._line)

    def _line(self, record: Any) -> bytes:
        value = record.get(self._field) if isinstance(record, dict) else getattr(record, self._field, None)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(value, str):
            found = "nothing" if value is None else type(value).__name__  # pyright: ignore[reportUnknownArgumentType]
            raise RecordError(f"expected text in field {self._field!r}, found {found}")
        if "\n" in value:
            raise RecordError(f"field {self._field!r} holds a line break, and would become several lines")
        return value.encode() + b"\n"
