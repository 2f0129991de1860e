"""What kind of failure an exception is: the record's, the other side's, or ours."""

import errno
import sqlite3
import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pipeline.errors import PipelineError, RecordError, RecordErrors, Unavailable

__all__ = ("Kind", "classify", "full_name", "meanings", "retry_after", "status_of")


class Kind(Enum):
    """The three classes of failures, and the exception nobody can tell apart."""

    RECORD = "record"
    """This record is bad; trying again won't help."""
    UNKNOWN = "unknown"
    """Perhaps the record, perhaps not: tried again, and then taken for the record's fault."""
    UNAVAILABLE = "unavailable"
    """The other side can't be reached just now."""
    FAULT = "fault"
    """Storage failed, or the stage is broken: the run must stop."""


_STORAGE = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE})
_NETWORK = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ETIMEDOUT,
        errno.EPIPE,
        errno.EAGAIN,
    }
)
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_RETRYABLE_STATUS = frozenset({408, 425, 429})
_DIGITS = 7
"""A wait of so many digits is nobody's: it is ignored."""


def classify(error: BaseException, meant: Mapping[str, Kind] | None = None) -> Kind:
    """Tell what kind of failure an exception is.

    ``meant`` says it for exceptions by their full name, for the nearest class of each (see `meanings`); what is a
    fault stays one.
    """
    kind = _classify(error)
    if not meant or kind is Kind.FAULT:
        return kind
    names = (full_name(each) for each in type(error).__mro__)
    return next((meant[name] for name in names if name in meant), kind)


def meanings(on: Mapping[Any, str]) -> dict[str, Kind]:
    """Return the kinds of ``retry.on`` by full names: a class may be known by another name than where it is from."""
    return {_resolved(name): Kind(kind) for name, kind in on.items()}


def full_name(error: type) -> str:
    """Return the module and the name of an exception's class; one of Python's own has only the name."""
    return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"


def _resolved(name: str) -> str:
    module, _, own = name.rpartition(".")
    found: Any = getattr(sys.modules.get(module), own, None)
    return full_name(found) if isinstance(found, type) else name.removeprefix("builtins.")


def _classify(error: BaseException) -> Kind:
    if isinstance(error, RecordError | RecordErrors):
        return Kind.RECORD
    if isinstance(error, PipelineError | MemoryError):
        return Kind.FAULT
    if isinstance(error, Unavailable | TimeoutError):
        return Kind.UNAVAILABLE
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return Kind.UNAVAILABLE if code in _LOCKED else Kind.UNKNOWN
    if isinstance(error, OSError):
        return _classify_os_error(error)
    status = status_of(error)
    if status is not None:
        return Kind.UNAVAILABLE if status in _RETRYABLE_STATUS or status >= 500 else Kind.RECORD
    return Kind.UNKNOWN


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception carries, as the common clients have it; None when it has none."""
    response = getattr(error, "response", None)
    for holder in (error, response):
        for name in ("status_code", "status", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def retry_after(error: BaseException, now: float) -> float | None:
    """Return the seconds that the other side asked to wait: of `Unavailable`, or of an HTTP answer's Retry-After.

    That is a number of seconds or a date, held against ``now``, in seconds since 1970. A date that has passed is 0;
    what is neither, or more than eleven days ahead, is None.
    """
    if isinstance(error, Unavailable):
        return error.retry_after
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    asked: Any = headers.get("Retry-After") if hasattr(headers, "get") else None
    if not isinstance(asked, str):
        return None
    if asked.isascii() and asked.isdigit():
        return float(asked) if len(asked) < _DIGITS else None
    return _until(asked, now)


def _until(date: str, now: float) -> float | None:
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(date)
        seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if seconds < 10 ** (_DIGITS - 1) else None


def _classify_os_error(error: OSError) -> Kind:
    if error.errno in _STORAGE:
        return Kind.FAULT
    if isinstance(error, ConnectionError) or error.errno in _NETWORK:
        return Kind.UNAVAILABLE
    return Kind.UNKNOWN
