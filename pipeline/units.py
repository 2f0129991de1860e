"""Durations, sizes and rates as people write them: ``250ms``, ``64KiB``, ``100/s``."""

import re

__all__ = ("format_duration", "format_size", "parse_backoff", "parse_duration", "parse_rate", "parse_size")

_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_NUMBER_UNIT = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")


def parse_duration(text: str) -> float:
    """Return the seconds in a text like ``250ms``, ``1.5s`` or ``2m``.

    :raises ValueError: for anything else, a bare number included; names the units that would do.
    """
    return _parse(text, _DURATIONS, "a duration with a unit (us, ms, s, m, h, d), like 250ms or 1.5s")


def parse_size(text: str) -> int:
    """Return the bytes in a text like ``64KiB`` or ``1MB``.

    :raises ValueError: for anything else, a bare number included; names the units that would do.
    """
    return round(_parse(text, _SIZES, "a size with a unit (B, KB, MB, GB, KiB, MiB, GiB), like 64KiB"))


def parse_rate(text: str) -> float:
    """Return the number a second in a text like ``100/s`` or ``6000/m``.

    :raises ValueError: for anything else.
    """
    match = _RATE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise ValueError("expected a rate with a unit (/s, /m, /h), like 100/s")
    return float(match[1]) / _DURATIONS[match[2]]


def parse_backoff(text: str) -> tuple[float, float]:
    """Return the first and the longest wait, in seconds, of a text like ``100ms..10s``; one duration is both.

    :raises ValueError: when a side is no duration, or the first is longer than the last.
    """
    first, dots, last = text.partition("..")
    low = parse_duration(first)
    high = parse_duration(last) if dots else low
    if low > high:
        raise ValueError(f"expected the shorter wait first, as in {last}..{first}")
    return low, high


def format_duration(seconds: float) -> str:
    """Return seconds as a short text that `parse_duration` reads: ``200ms``, ``1.5s``, ``2m``."""
    if seconds >= 120 and seconds % 60 == 0:
        return f"{seconds / 60:g}m"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.4g}s"
    return f"{seconds * 1e3:.4g}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.4g}us"


def format_size(count: float) -> str:
    """Return bytes as a short text: ``16MiB``, ``1.5KiB``."""
    for unit in ("GiB", "MiB", "KiB"):
        if count >= _SIZES[unit]:
            return f"{count / _SIZES[unit]:.4g}{unit}"
    return f"{count:.4g}B"


def _parse(text: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"expected {expected}")
    return float(match[1]) * units[match[2]]
