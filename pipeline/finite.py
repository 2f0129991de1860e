"""NaN and infinity, for which JSON has no words: where they are, and quick ways to tell that there are none."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ("nonfinite_in", "sums_up")


def sums_up(values: Iterable[Any]) -> bool:
    """Tell whether values have a finite sum, and so none among them is no finite number; False says nothing."""
    try:
        total: Any = sum(values)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
        return False
    return type(total) in (int, float) and total - total == 0


def nonfinite_in(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each NaN and infinity in a value of built-in types (``http.ms``, ``loads[2]``)."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from nonfinite_in(inner, f"{path}.{name}" if path else str(name))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            yield from nonfinite_in(inner, f"{path}[{index}]")
