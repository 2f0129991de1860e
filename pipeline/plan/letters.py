"""The key ``dead_letter:`` of a config: its sink is made like one of the stages."""

from collections.abc import Mapping
from typing import Any, cast

from pipeline.plan.code import check_expressions, resolve_functions
from pipeline.plan.document import Path
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.scalars import INVALID, kind_of_value
from pipeline.plan.schema import keys_of
from pipeline.plan.values import Report, build, check_keys
from pipeline.stage import Stage

__all__ = ("with_sink",)

_AT: Path = ("dead_letter",)


def with_sink(given: object, registry: Registry, report: Report) -> object:
    """Return what stands under ``dead_letter:`` with the sink in the place of its kind and keys."""
    if not isinstance(given, dict):
        return given
    found = cast("dict[str, Any]", given)
    rest = {name: value for name, value in found.items() if name not in ("sink", "with")}
    if "sink" not in found:
        if "with" in found:
            report((*_AT, "with"), "these are keys of a sink; name its kind with 'sink:'", key=True)
        return rest
    return rest | {"sink": _made(found["sink"], found.get("with"), registry, report)}


def _made(kind: object, below: object, registry: Registry, report: Report) -> object:
    if not isinstance(kind, str):
        if kind is not INVALID:
            kinds = ", ".join(registry.kinds("sink"))
            report((*_AT, "sink"), f"expected a kind, one of {kinds}; got {kind_of_value(kind)}")
        return INVALID
    try:
        declared = registry.stage("sink", kind)
    except NotFoundError as error:
        report((*_AT, "sink"), str(error))
        return INVALID
    if below is not None and not isinstance(below, dict):
        if below is not INVALID:
            report((*_AT, "with"), f"expected a mapping of keys, got {kind_of_value(below)}")
        return INVALID
    return _built(declared, cast("Mapping[str, Any]", below or {}), registry, report)


def _built(declared: type[Stage], below: Mapping[str, Any], registry: Registry, report: Report) -> object:
    where = (*_AT, "with")
    own = [key for key in keys_of(declared) if not key.engine]
    values = check_keys(below, own, where, report)
    values = resolve_functions(own, values, registry, report, where)
    check_expressions(own, values, report, where)
    if INVALID in values.values() or any(key.required and key.name not in values for key in own):
        return INVALID
    spec = build(declared, values, _AT, report)
    if isinstance(spec, Stage):
        for key, text in spec.problems():
            report((*where, *key.split(".")) if key else _AT, text)
    return spec
