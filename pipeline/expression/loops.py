"""Native functions, and loops over many records: quick ones for records that are alike, a plain one for the rest.

A quick loop is written for records of exactly one class, all of whose fields are there: it reads without asking. What
does not fit (another class, a missing field, whatever fails) is evaluated again as any single record is, and so means
the same and fails with the same words. Where much does not fit, what is left is taken by runs of one class, and where
it is of one class by the plain loop.
"""

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, cast

from pipeline.expression.library import OPERATIONS
from pipeline.expression.report import Report

__all__ = ("Loop", "Loops", "Quick", "native", "quick_loop")

Loop = Callable[[Iterable[Any], Callable[[Any], None]], None]
"""Takes records, and what is called with the value of each, in order, up to the first that fails.

Records are all fetched before the first is evaluated. Fastest with a list's own ``append``.
"""
Quick = Callable[[Iterator[Any], list[Any], Callable[[Any], Any], int], None]
"""Takes records, the list for their values, the function for those that do not fit, and after how many to return."""

_MISFITS = 8
"""Records of a call that may cost an attempt in vain; one costs about as much as ten quick records."""
_MOST_CLASSES = 64
_QUICK = """
def _evaluate_class(_records, _values, _evaluate, _misfits, _type=_type, _class=_class):
  for _record in _records:
    if _type(_record) is _class:
      try: pass
      except _Exception: pass
    _values.append(_evaluate(_record))
    _misfits -= 1
    if not _misfits: return
"""


class Loops:
    """The loop of an expression: chooses by the first record which quick loop to begin with."""

    def __init__(self, function: Callable[[Any], Any], plain: Loop, write: Callable[[type[Any]], Quick | None]) -> None:
        self._function = function
        self._plain = plain
        self._write = write
        self._quick: dict[type[Any], Quick | None] = {}

    def __call__(self, records: Iterable[Any], append: Callable[[Any], None]) -> None:
        """Append the value of each record, up to the first that fails, which is raised."""
        fetched: list[object] = list(records)
        if not fetched:
            return
        rest = iter(fetched)
        kind = type(fetched[0])
        quick = self._quick_for(kind)
        if quick is not None:
            _run(quick, rest, append, self._function)
        left = list(rest)
        if len(set(map(type, left))) > 1:
            self._by_runs(left, append)
        elif left:
            self._plain(left, append)

    def _by_runs(self, records: list[object], append: Callable[[Any], None]) -> None:
        own = _list_of(append)
        for kind, run in groupby(records, type):
            alike = iter(list(run))
            quick = self._quick_for(kind)
            if quick is not None and own is not None:
                quick(alike, own, self._function, _MISFITS)
            self._plain(alike, append)

    def _quick_for(self, kind: type[Any]) -> Quick | None:
        if kind in self._quick:
            return self._quick[kind]
        if len(self._quick) >= _MOST_CLASSES:
            return None
        try:
            quick = self._write(kind)
        except Exception:  # whatever is wrong with the user's class is said of its records, one by one
            quick = None
        self._quick[kind] = quick
        return quick


def _list_of(append: Callable[[Any], None]) -> list[Any] | None:
    """Return the list whose own ``append`` this is."""
    own: Any = getattr(append, "__self__", None)
    return own if own.__class__ is list and append == own.append else None


def _run(quick: Quick, records: Iterator[Any], append: Callable[[Any], None], function: Callable[[Any], Any]) -> None:
    own = _list_of(append)
    if own is not None:
        quick(records, own, function, _MISFITS)
        return
    values: list[Any] = []
    try:
        quick(records, values, function, _MISFITS)
    finally:
        for value in values:
            append(value)


def quick_loop(body: list[ast.stmt], names: dict[str, Any]) -> Quick:
    """Return the quick loop with these statements for a record; ``names`` are what they can reach."""
    namespace = {**OPERATIONS, **names}
    statements = [_appended(statement, "_values.append") for statement in body]
    _define(_QUICK, [*statements, ast.Continue(lineno=1, end_lineno=1, col_offset=0, end_col_offset=0)], namespace)
    return cast(Quick, namespace["_evaluate_class"])


def native(
    names: Sequence[str], body: list[ast.stmt], report: Report, for_typed: Callable[..., Any] | None
) -> tuple[Callable[..., Any], Loop | None]:
    """Return the function with these statements, and its plain loop where it takes nothing but a record."""
    record = "_record" if "_record" in names else "None"
    arguments = ", ".join(names)
    # Nearly all records are dicts: they pay for the test of their class and nothing else.
    hand_over = (
        "    if _type(_record) is not _dict and _hasattr(_type(_record), '__struct_fields__'):"
        f" return _for_typed({arguments})\n"
    )
    texts = [
        f"def _evaluate({arguments}):\n"
        f"{hand_over if for_typed is not None else ''}"
        "    try: pass\n"
        f"    except _Exception as _error: raise _report({record}, _error) from _error"
    ]
    bodies = [body]
    if list(names) == ["_record"]:
        # A frame for all records: setting one up for each is a quarter of what a short text costs.
        texts.append(
            "def _evaluate_all(_records, _append):\n"
            "  for _record in _records:\n"
            f"{_LOOP_HAND_OVER if for_typed is not None else ''}"
            "    try: pass\n"
            "    except _Exception as _error: raise _report(_record, _error) from _error"
        )
        bodies.append([_appended(statement, "_append") for statement in body])
    namespace = {**OPERATIONS, "_report": report, "_for_typed": for_typed}
    for text, statements in zip(texts, bodies, strict=True):
        _define(text, statements, namespace)
    return cast(Callable[..., Any], namespace["_evaluate"]), cast(Loop | None, namespace.get("_evaluate_all"))


_LOOP_HAND_OVER = (
    "    if _type(_record) is not _dict and _hasattr(_type(_record), '__struct_fields__'):\n"
    "        _append(_for_typed(_record))\n"
    "        continue\n"
)


def _define(text: str, statements: list[ast.stmt], namespace: dict[str, Any]) -> None:
    """Define the function of the text, with these statements in the place of what it tries."""
    module = ast.parse(text)
    next(part for part in ast.walk(module) if isinstance(part, ast.Try)).body = statements
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python thinks of `1 == ()` is no matter of the user's
        exec(compile(module, "<expression>", "exec"), namespace)


def _appended(statement: ast.stmt, append: str) -> ast.stmt:
    """Return the statement for a loop: a value goes to the list and the next record comes."""
    if not isinstance(statement, ast.Return) or statement.value is None:
        return statement
    call = ast.parse(f"{append}(VALUE)").body[0]
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    for part in ast.walk(call):
        if isinstance(part, ast.expr | ast.stmt):
            ast.copy_location(part, statement)
    call.value.args = [statement.value]
    return call
