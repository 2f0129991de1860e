"""Values as JSON text that SQLite can hold: plain ASCII, so that lone surrogates and long integers survive."""

import json
import sqlite3
from typing import Any

import msgspec

__all__ = ("damage", "decode", "encode", "encode_any", "one_line", "printable")


def encode(value: Any) -> str:
    """Return a value as JSON text; structs are objects.

    :raises TypeError, ValueError: for what JSON can't hold.
    """
    return json.dumps(value, separators=(",", ":"), default=_struct)


def decode(text: str) -> Any:
    """Return the value of a JSON text that `encode` wrote.

    :raises sqlite3.DatabaseError: when it is none any more.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise damage(f"a text in it was changed: {error}") from error


def damage(text: str) -> sqlite3.DatabaseError:
    """Return an error as SQLite's own for a file that is damaged: what SQLite can't see, since it is still a value."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def encode_any(value: Any) -> tuple[str, bool]:
    """Return any value as JSON text, and whether it had to be shown as its ``repr``."""
    try:
        return encode(value), False
    except (TypeError, ValueError, RecursionError):
        return encode(printable(_shown(value))), True


def printable(text: str) -> str:
    """Return text that UTF-8 can hold; lone surrogates are shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(found: object) -> str:
    """Return a text or an error as one printable line."""
    return " ".join(printable(str(found)).split())


def _struct(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # a record's own code: whatever it raises must not lose the letter
        return f"<{type(value).__name__}, repr failed: {type(error).__name__}>"
