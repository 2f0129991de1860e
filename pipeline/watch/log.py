"""Log events as lines, for people or as JSON, through Python's own logging, so that any of its outputs can be used."""

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pipeline.watch.events import Subscriber

__all__ = ("TRACE", "JsonFormatter", "TextFormatter", "escape", "log_events", "masked")

Mask = Callable[[str], str]

TRACE = 5
"""The level of what happens to each record, below `logging.DEBUG`."""
logging.addLevelName(TRACE, "TRACE")

_LEVELS = {
    "batch": logging.DEBUG,
    "breaker": logging.WARNING,
    "dead_letter": logging.WARNING,
    "error": logging.ERROR,
    "failed": logging.DEBUG,
    "record": TRACE,
    "restart": logging.WARNING,
    "retry": logging.WARNING,
    "warning": logging.WARNING,
}
# Whatever could end a line, move the cursor, or turn the direction of the text around; and what no encoding can hold.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\\\]")
_UNSAFE_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
_BARE = re.compile(r"[\w./:,+%@*-]+")


def log_events(logger: logging.Logger) -> Subscriber:
    """Return a subscriber that logs each event; the formatters here show its name and fields."""

    def tell(event: str, fields: Mapping[str, Any]) -> None:
        logger.log(_level(event, fields), event, extra={"event": event, "fields": dict(fields)})

    return tell


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, event and its fields. ``mask`` hides secrets in every text."""

    def __init__(self, mask: Mask | None = None) -> None:
        super().__init__()
        self._mask = mask or _unmasked

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; nothing in a value can begin another, because JSON escapes it."""
        line = {"ts": _moment(record.created), "level": record.levelname.lower()}
        line |= masked(_fields_of(self, record), self._mask)
        return json.dumps(line, default=str, separators=(",", ":"))


class TextFormatter(logging.Formatter):
    """One line a log event: time, level, event, and its fields as ``name=value``."""

    def __init__(self, mask: Mask | None = None) -> None:
        super().__init__()
        self._mask = mask or _unmasked

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; control characters in a value are shown as escapes."""
        fields = _fields_of(self, record)
        event = escape(str(fields.pop("event")))
        said = " ".join(f"{escape(name)}={_text(value)}" for name, value in masked(fields, self._mask).items())
        return f"{_moment(record.created)} {record.levelname.lower():<7} {event} {said}".rstrip()


def escape(text: str) -> str:
    """Return a text of one line that a terminal shows as it is: control characters as escapes."""
    return _UNSAFE_LINE.sub(_escaped, text)


def masked(value: Any, mask: Mask) -> Any:
    """Return JSON-able data with secrets hidden in every text, and with numbers that JSON has no word for as text."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        entries = cast("dict[Any, Any]", value)
        return {str(name): masked(inner, mask) for name, inner in entries.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, mask) for inner in cast("list[Any]", value)]
    return value if value is None or isinstance(value, bool | int | float) else mask(str(value))


def _level(event: str, fields: Mapping[str, Any]) -> int:
    if event == "alert":
        return logging.INFO if fields.get("state") in ("cleared", "ended") else logging.WARNING
    if event == "finished" and fields.get("exit_code"):
        return logging.ERROR if fields.get("error") else logging.WARNING
    return _LEVELS.get(event, logging.INFO)


def _fields_of(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, Any]:
    """Return event and fields; of a line that somebody else logged, its text."""
    event = getattr(record, "event", None)
    if event is not None:
        return {"event": event, **getattr(record, "fields", {})}
    found = {"event": "log", "logger": record.name, "text": record.getMessage()}
    if record.exc_info:
        found["traceback"] = formatter.formatException(record.exc_info)
    return found


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list):
        value = json.dumps(value, default=str, ensure_ascii=False)
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    return '"' + _UNSAFE.sub(_escaped, text).replace('"', '\\"') + '"'


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SHORT:
        return _SHORT[char]
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _unmasked(text: str) -> str:
    return text
