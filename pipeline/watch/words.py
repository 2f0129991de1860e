"""How numbers, times and counts are written in sentences."""

import time

from pipeline.units import format_duration

__all__ = ("amount", "counted", "moment", "records", "seconds_text")


def amount(value: float) -> str:
    """Return a number with its thousands apart: ``336,776``, ``12.5``."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def seconds_text(seconds: float) -> str:
    """Return a length of time with two or three digits: ``12ms``, ``1.42s``, ``6m 40s``."""
    if seconds < 1:
        return format_duration(float(f"{seconds:.2g}"))
    if seconds < 100:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60:02d}m"


def moment(wall: float, *, with_date: bool = False) -> str:
    """Return seconds since 1970 as local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if with_date else "%H:%M:%S", time.localtime(wall))


def records(count: float) -> str:
    """Return ``1 record``, ``12 records``."""
    return counted(count, "record", "records")


def counted(count: float, one: str, many: str) -> str:
    """Return a number with the word for one or for many."""
    return f"{amount(count)} {one if count == 1 else many}"
