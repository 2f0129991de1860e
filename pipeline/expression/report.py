"""Which part of an expression failed, on which field, in words."""

import ast
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.errors import RecordError
from pipeline.expression.library import field_of, kind_of
from pipeline.expression.text import Text, operands, path_of, shorten

__all__ = ("EvaluationError", "Place", "Report")


class EvaluationError(RecordError):
    """Raised when an expression fails on a record; says which field is at fault, and which types met.

    ``expression`` is the part of the text that failed, ``fields`` are the fields at fault (``a.b`` for nested ones).
    """

    def __init__(self, message: str, expression: str = "", fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.expression = expression
        self.fields = fields


class Place(NamedTuple):
    """What a line number of the code stands for."""

    text: Text
    tree: ast.expr


_Path = tuple[str, ...]
_PAIRS = (
    (r"'(.+)' not supported between instances of '(.+)' and '(.+)'", r"can't compare \2 with \3"),
    (r"unsupported operand type\(s\) for (\S+): '(.+)' and '(.+)'", r"can't apply \1 to \2 and \3"),
    (r'can only concatenate (\w+) \(not "(.+)"\) to \w+', r"can't apply + to \1 and \2"),
    (r"bad operand type for unary (.): '(.+)'", r"can't apply \1 to \2"),
    (r"descriptor '(\w+)' for '\w+' objects doesn't apply to an? '(.+)' object", r"\1() needs a text, not \2"),
    (r"argument of type '(.+)' is not iterable", r"can't look for a value in \1"),
)


class Report:
    """Makes the error of a record from the exception that its evaluation ended with."""

    def __init__(self, places: Sequence[Place], typed: bool, parameters: bool) -> None:
        self._places = places
        self._typed = typed
        self._parameters = parameters

    def __call__(self, record: Any, error: Exception) -> EvaluationError:
        """Return the error for the exception; its traceback begins in the code that evaluated the record."""
        if not self._parameters and isinstance(error, AttributeError) and not self._fits(record):
            wanted = "a typed record" if self._typed else "an object with fields"
            return EvaluationError(f"record is {kind_of(record)}, not {wanted}")
        line = error.__traceback__.tb_lineno if error.__traceback__ else 1
        text, tree = self._places[min(line, len(self._places)) - 1]
        reason = _reason(error)
        fields = self._fields(record, tree, reason)
        setting = f"setting '{text.target}': " if text.target is not None else ""
        part = text.part(tree)
        return EvaluationError(f"{setting}{_named(fields)}{reason} ({part})", part, fields)

    def _fits(self, record: Any) -> bool:
        return hasattr(record, "__struct_fields__" if self._typed else "get")

    def _fields(self, record: Any, tree: ast.expr, reason: str) -> tuple[str, ...]:
        if self._parameters:
            return ()
        if isinstance(tree, ast.BinOp) and reason == "division by zero":
            tree = tree.right
        paths = [path for operand in operands(tree) if (path := path_of(operand))] or _paths(tree)
        if "None" in reason:
            paths = [path for path in paths if _value(record, path) is None] or paths
        return tuple(dict.fromkeys(".".join(path) for path in paths))


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values are nested too deeply"
    if isinstance(error, ZeroDivisionError) and "power" not in str(error):
        return "division by zero"
    said = shorten(str(error), 500) or type(error).__name__
    for pattern, words in _PAIRS:
        said = re.sub(rf"^{pattern}.*$", words, said, flags=re.DOTALL)
    return shorten(said.replace("NoneType", "None"), 200)


def _named(fields: Sequence[str]) -> str:
    if not fields:
        return ""
    return f"field{'s' * (len(fields) > 1)} {' and '.join(repr(name) for name in fields)}: "


def _paths(tree: ast.expr) -> list[_Path]:
    if path := path_of(tree):
        return [path]
    return [path for operand in operands(tree) for path in _paths(operand)]


def _value(record: Any, path: _Path) -> Any:
    for name in path:
        try:
            record = field_of(record, name)
        except Exception:  # a property of the user's record
            return path
    return record
