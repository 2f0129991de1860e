"""The JSON schema of a config, for editors: from the same declarations that check it."""

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import msgspec

from pipeline.plan.keys import DeadLetterConfig, PipelineConfig
from pipeline.plan.naming import ROLES
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.schema import LISTS, MAPPINGS, ROLE_CLASSES, Key, Option, is_struct, keys_of, options_of
from pipeline.stage import Stage

__all__ = ("json_schema",)

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_UNIT_PATTERNS = {
    "duration": r"^\d+(\.\d+)? ?(us|ms|s|m|h|d)$",
    "size": r"^\d+(\.\d+)? ?(B|KB|MB|GB|KiB|MiB|GiB)$",
    "rate": r"^\d+(\.\d+)?/(s|m|h)$",
    "backoff": r"^\d+(\.\d+)? ?(us|ms|s|m|h|d)(\.\.\d+(\.\d+)? ?(us|ms|s|m|h|d))?$",
}
_REFERENCE = r"\$\{(env|file):"
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def json_schema(registry: Registry) -> dict[str, Any]:
    """Return one schema for a whole config, with every kind that can be loaded; texts may hold ``${env:...}``."""
    definitions = {
        f"{role}.{kind}": _stage(role, kind, declared)
        for role in ROLES
        for kind in registry.kinds(role)
        if (declared := _loaded(registry, role, kind)) is not None
    }
    definitions |= {f"{role}.own": _own_stage(role) for role in ROLES}
    stages = {
        "type": "array",
        "minItems": 2,
        "items": {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in definitions]},
        "description": "The stages, each reading from the one above it unless `from:` names others.",
    }
    top = _mapping(keys_of(PipelineConfig))
    top["properties"]["stages"] = stages
    top["properties"]["dead_letter"]["anyOf"] = [_dead_letter(), {"type": "null"}]
    top["required"].append("stages")
    return {"$schema": _DRAFT, "title": "A pipeline", **top, "$defs": definitions}


def _dead_letter() -> dict[str, Any]:
    """Its sink is written as that of a stage, and made when the config is loaded."""
    schema = _mapping([key for key in keys_of(DeadLetterConfig) if key.name != "sink"])
    schema["properties"]["sink"] = {"type": "string", "description": "Kind of a sink that gets copies."}
    schema["properties"]["with"] = {"type": "object", "description": "Keys of that sink."}
    return schema


def _loaded(registry: Registry, role: str, kind: str) -> type[Stage] | None:
    try:
        return registry.stage(role, kind)
    except NotFoundError:  # a broken package: `stages` and `check` say so, an editor can do without it
        return None


def _stage(role: str, kind: str, declared: type[Stage]) -> dict[str, Any]:
    keys = keys_of(declared)
    schema = _mapping([key for key in keys if key.engine])
    own = _mapping([key for key in keys if not key.engine])
    summary = (declared.__doc__ or "").strip().split("\n")[0]
    schema["properties"] = {role: {"const": kind, "description": summary}, "with": own} | schema["properties"]
    schema["required"] = [role, *(["with"] if own["required"] else [])]
    return _reading(role, schema)


def _own_stage(role: str) -> dict[str, Any]:
    """A class of the user's own, named ``module:Class``: its keys are not known here."""
    schema = _mapping([key for key in keys_of(ROLE_CLASSES[role]) if key.engine])
    kind = {"type": "string", "pattern": ":", "description": "A class of your own, as module:Class."}
    schema["properties"] = {role: kind, "with": {"type": "object"}} | schema["properties"]
    schema["required"] = [role]
    return _reading(role, schema)


def _reading(role: str, schema: dict[str, Any]) -> dict[str, Any]:
    if role != "source":
        names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        text = "The stages to read from; the one above if left out."
        schema["properties"]["from"] = {"anyOf": [{"type": "string"}, names], "description": text}
    return schema


def _mapping(keys: Sequence[Key]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key.name: _key(key) for key in keys},
        "required": [key.name for key in keys if key.required],
        "additionalProperties": False,
    }


def _key(key: Key) -> dict[str, Any]:
    schema = _value(key.annotation)
    if key.description:
        schema = schema | {"description": key.description}
    if isinstance(key.default, str | int | float | bool) and key.unit is None:
        schema = schema | {"default": key.default}
    return schema


def _value(annotation: Any) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    for option in options_of(annotation):
        schema = _option(option)
        if schema is not None and schema not in options:
            options.append(schema)
    return options[0] if len(options) == 1 else {"anyOf": options} if options else {"not": {}}


def _option(option: Option) -> dict[str, Any] | None:
    """Return the schema of one type; None for what YAML can't hold."""
    kind, origin = option.type, get_origin(option.type) or option.type
    if kind is Any:
        return {}
    if option.unit:
        return _quantity(option)
    if kind in _SCALARS:
        return {"type": _SCALARS[kind], **_bounds(option)}
    if kind is None or kind is type(None):
        return {"type": "null"}
    if origin is Literal:
        return {"enum": list(get_args(kind))}
    arguments = get_args(kind)
    if origin in LISTS:
        return {"type": "array", "items": _value(arguments[0]) if arguments else {}}
    if origin in MAPPINGS:
        return {"type": "object", "additionalProperties": _value(arguments[1]) if len(arguments) > 1 else {}}
    return _struct(kind) if is_struct(kind) else None


def _quantity(option: Option) -> dict[str, Any] | None:
    if option.type is not str:
        return None
    pattern = f"{_UNIT_PATTERNS[option.unit or '']}|{_REFERENCE}"
    return {"type": "string", "pattern": pattern}


def _struct(declared: type[msgspec.Struct]) -> dict[str, Any]:
    return _mapping(keys_of(declared))


def _bounds(option: Option) -> dict[str, Any]:
    number = option.type in (int, float)
    return {
        word: limit
        for meta in option.metas
        for name, word in _BOUNDS.items()
        if number and (limit := getattr(meta, name)) is not None
    }
