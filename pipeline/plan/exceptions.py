"""The exceptions that ``retry.on`` names: there must be such a class, or what is meant would never match."""

import builtins
import importlib
import sys
from collections.abc import Mapping
from typing import Any, cast

from pipeline.nearest import did_you_mean
from pipeline.plan.document import Path
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.values import Report
from pipeline.stage import Retry

__all__ = ("check_exceptions",)


def check_exceptions(values: Mapping[str, Any], registry: Registry | None, report: Report, where: Path = ()) -> None:
    """Report every name under ``retry.on`` that is no exception.

    A module that is not imported yet is asked of the registry, as a function's would be; without one, anything may be
    imported. So call it when the stage's own functions are there.
    """
    retry = values.get("retry")
    if not isinstance(retry, Retry):
        return
    for name in cast("Mapping[object, object]", retry.on):
        if problem := _problem(name, registry):
            report((*where, "retry", "on", str(name)), problem, key=True)


def _problem(name: object, registry: Registry | None) -> str | None:
    if not isinstance(name, str):
        return f"expected an exception, or its name, got {name!r}"
    module, _, own = name.rpartition(".")
    if not module:
        return _misnamed(name, vars(builtins), "no exception of Python's own", "; name others as module.Name")
    try:
        found = sys.modules.get(module) or _imported(module, own, registry)
    except NotFoundError as error:
        return str(error)
    except ImportError as error:
        return f"module '{module}' can't be imported: {error}"
    return _misnamed(own, vars(found), f"no exception of module '{module}'")


def _imported(module: str, own: str, registry: Registry | None) -> Any:
    if registry is None:
        return importlib.import_module(module)
    registry.imported(f"{module}:{own}")
    return sys.modules[module]


def _misnamed(name: str, among: Mapping[str, object], what: str, else_: str = "") -> str | None:
    known = [each for each, value in among.items() if isinstance(value, type) and issubclass(value, Exception)]
    return None if name in known else f"'{name}' is {what}{did_you_mean(name, known) or else_}"
