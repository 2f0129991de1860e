"""The code that keys name: expressions, and functions as ``module:name``."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pipeline.expression import ExpressionError, compile_expression
from pipeline.plan.document import Path
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.scalars import INVALID
from pipeline.plan.schema import Key, keys_of
from pipeline.plan.values import Report, texts_in
from pipeline.stage import Batcher

__all__ = ("OTHERWISE", "check_expressions", "live_code", "resolve_functions")

OTHERWISE = "otherwise"
"""As ``when``: takes what no sibling took."""
_NO_ORIGIN = "_origin is not known here, only the record; compute a field of it with a map before, and use that"


def check_expressions(keys: Iterable[Key], values: Mapping[str, Any], report: Report, where: Path = ()) -> None:
    """Report every text that is no expression, at the character that is at fault; the stages compile them again."""
    for key in keys:
        if not key.expression or (key.name == "when" and values.get("when") == OTHERWISE):
            continue
        for path, text in texts_in(values.get(key.name), (*where, key.name)):
            try:
                uses_origin = _uses_origin(text, key.parameters)
            except ExpressionError as error:
                report(path, error.message, offset=error.column)
                continue
            if uses_origin and key in _batchers():
                report(path, _NO_ORIGIN, offset=max(text.find("_origin"), 0))


@lru_cache(maxsize=1000)
def _uses_origin(text: str, parameters: tuple[str, ...]) -> bool:
    # One sort of records is enough to find mistakes by; a plan is checked when it is loaded and once more when it runs.
    return compile_expression(text, typed=False, parameters=parameters).uses_origin


def _batchers() -> list[Key]:
    """Return the keys that every batcher has of its own: of those, the engine evaluates expressions without origins."""
    return [key for key in keys_of(Batcher) if not key.engine]


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
