"""The nearest known name to one that nobody has."""

from collections.abc import Iterable

__all__ = ("did_you_mean",)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` with the nearest known name, or nothing."""
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name[:100], sorted(set(known)), 1, 0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
