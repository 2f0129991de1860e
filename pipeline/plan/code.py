"""The code that keys name: expressions, and functions as ``module:name``."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.expression import ExpressionError, compile_expression
from pipeline.plan.document import Path
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.scalars import INVALID
from pipeline.plan.schema import Key
from pipeline.plan.values import Report, texts_in

__all__ = ("OTHERWISE", "check_expressions", "live_code", "resolve_functions")

OTHERWISE = "otherwise"
"""As ``when``: takes what no sibling took."""


def check_expressions(keys: Iterable[Key], values: Mapping[str, Any], report: Report, where: Path = ()) -> None:
    """Report every text that is no expression, at the character that is at fault; the stages compile them again."""
    for key in keys:
        if not key.expression or (key.name == "when" and values.get("when") == OTHERWISE):
            continue
        for path, text in texts_in(values.get(key.name), (*where, key.name)):
            try:
                compile_expression(text, parameters=key.parameters)
            except ExpressionError as error:
                report(path, error.message, offset=error.column)


def resolve_functions(
    keys: Iterable[Key], values: Mapping[str, Any], registry: Registry, report: Report, where: Path = ()
) -> dict[str, Any]:
    """Return the values with each function's name replaced by the function; what can't be had is reported."""
    found = dict(values)
    for key in keys:
        name = values.get(key.name)
        if key.function and isinstance(name, str):
            try:
                found[key.name] = registry.function(name)
            except NotFoundError as error:
                report((*where, key.name), str(error))
                found[key.name] = INVALID
    return found


def live_code(keys: Iterable[Key], values: Mapping[str, Any]) -> list[str]:
    """Return the keys whose value is a user's function: the plan can't know whether it does the same each time."""
    return [key.name for key in keys if (key.function or key.expression) and callable(values.get(key.name))]
