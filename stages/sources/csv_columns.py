"""Values of the columns of delimited text: texts that mean nothing, and texts that are numbers."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

__all__ = ("Columns",)

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


class Columns:
    """Turns the texts of rows into values, a column at a time."""

    def __init__(self, names: Sequence[str], types: Mapping[str, str], nulls: frozenset[str]) -> None:
        self._names = names
        self._types = [types.get(name, "str") for name in names]
        self._nulls = nulls
        self._plain = not nulls and set(self._types) <= {"str"}

    def values(self, rows: list[list[str]]) -> Sequence[Sequence[Any]]:
        """Return the rows as values.

        :raises ValueError: when any value is not of its type.
        """
        if self._plain:
            return rows
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for at, kind in enumerate(self._types):
            columns[at] = self._column(columns[at], kind)
        return list(zip(*columns, strict=True))

    def row(self, row: list[str]) -> list[Any]:
        """Return one row as values.

        :raises ValueError: names the first field whose value is not of its type.
        """
        return [self._value(*cell) for cell in zip(self._names, row, self._types, strict=True)]

    def _column(self, column: Sequence[str], kind: str) -> Sequence[Any]:
        nulls = [null for null in self._nulls if null in column]
        if kind == "str":
            return [None if text in nulls else text for text in column] if nulls else column
        convert = _CONVERSIONS[kind]
        if not nulls:
            return convert(column)
        found = iter(convert([text for text in column if text not in nulls]))
        return [None if text in nulls else next(found) for text in column]

    def _value(self, name: str, text: str, kind: str) -> Any:
        try:
            return self._column((text,), kind)[0]
        except (ValueError, KeyError):
            shown = text if len(text) <= 100 else f"{text[:100]}..."
            raise ValueError(f"field {name!r}: {shown!r} is not of type {kind}") from None


def _integers(column: Sequence[str]) -> list[int]:
    _refuse_underscores(column)
    return list(map(int, column))


def _floats(column: Sequence[str]) -> list[float]:
    _refuse_underscores(column)
    values = list(map(float, column))
    if not all(map(isfinite, values)):
        raise ValueError("not a finite number")
    return values


def _truths(column: Sequence[str]) -> list[bool]:
    return [_TRUTH[text.lower()] for text in column]


def _refuse_underscores(column: Sequence[str]) -> None:
    # Python's own spelling of a number, 1_000, is nobody's data.
    if "_" in "".join(column):
        raise ValueError("not a number")


_CONVERSIONS: dict[str, Callable[[Sequence[str]], Sequence[Any]]] = {
    "int": _integers,
    "float": _floats,
    "bool": _truths,
}
