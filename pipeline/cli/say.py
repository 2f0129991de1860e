"""What the command says: results on standard output, everything else on standard error, and how values look there."""

import os
import sys
import time
from collections.abc import Iterable, Sequence

from pipeline.cli.signals import Stopped
from pipeline.errors import StorageError

__all__ = ("ago", "clock_time", "err", "number", "out", "span", "table")


def out(text: str) -> None:
    """Write a result to standard output.

    :raises Stopped: with 141 when whoever read it has gone.
    :raises StorageError: when it can't be written for another reason, as on a full disk.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise Stopped(141) from None
    except OSError as error:
        raise StorageError(f"standard output can't be written to: {os.strerror(error.errno or 0)}") from None


def err(text: str) -> None:
    """Say something on standard error; when nobody can hear it any more, the work goes on."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def number(value: float) -> str:
    """Return a number with its thousands apart: ``336,776``, ``12.5``."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def span(seconds: float) -> str:
    """Return a length of time for people: ``340ms``, ``12s``, ``3m 05s``, ``2h 10m``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def clock_time(seconds: float) -> str:
    """Return a moment (seconds since 1970) in local time: ``2026-03-01 12:30:05``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def ago(seconds: float) -> str:
    """Return a moment (seconds since 1970) and how long ago it was."""
    return f"{clock_time(seconds)} ({span(max(0.0, time.time() - seconds))} ago)"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under their heads, columns aligned."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
