"""``pipeline stages``: what there is to build with, from the declarations that check a config."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.say import out, table
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.plan.registry import Registry
    from pipeline.plan.schema import Key
    from pipeline.stage import Stage

__all__ = ("command",)


@click.command("stages", short_help="List every kind of stage; with a NAME every key of it.")
@click.argument("name", nargs=-1, metavar="[ROLE] [NAME]")
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def command(name: tuple[str, ...], as_json: bool) -> None:
    """List every kind of stage; with a NAME every key of it: type, default, and a sentence.

    NAME is a kind like `csv`, and its role in front where only one is meant: `sink csv`; a role alone lists its kinds.
    """
    from pipeline.plan.registry import Registry

    found = _chosen(Registry(), name)
    detailed = any(kind in name for _, kind, _ in found)
    if as_json:
        import json

        out(json.dumps([_as_data(*each) for each in found], indent=2))
    elif detailed:
        out("\n\n".join("\n".join(_page(*each)) for each in found))
    else:
        out(table(("role", "kind", ""), [(role, kind, _sentence(stage)) for role, kind, stage in found]))


def _chosen(registry: "Registry", words: tuple[str, ...]) -> "list[tuple[str, str, type[Stage]]]":
    from pipeline.nearest import did_you_mean
    from pipeline.plan.naming import ROLES

    roles = [word for word in words if word in ROLES]
    kinds = [word for word in words if word not in ROLES]
    if len(roles) > 1 or len(kinds) > 1:
        raise ConfigError("expected one kind, with its role in front or alone, like: pipeline stages sink csv")
    among = [(role, kind) for role in roles or ROLES for kind in registry.kinds(role)]
    if kinds and not any(kind == kinds[0] for _, kind in among):
        what = roles[0] if roles else "kind of stage"
        listed = shlex.join(["pipeline", "stages", *roles])
        near = did_you_mean(kinds[0], (kind for _, kind in among)) or f"; {listed} lists them"
        raise ConfigError(f"unknown {what} '{kinds[0]}'{near}")
    return [(role, kind, _loaded(registry, role, kind)) for role, kind in among if not kinds or kind == kinds[0]]


def _loaded(registry: "Registry", role: str, kind: str) -> "type[Stage]":
    from pipeline.plan.registry import NotFoundError

    try:
        return registry.stage(role, kind)
    except NotFoundError as error:
        raise ConfigError(str(error)) from None


def _sentence(stage: "type[Stage]") -> str:
    text = " ".join((stage.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]


def _page(role: str, kind: str, stage: "type[Stage]") -> Iterator[str]:
    from inspect import getdoc

    from pipeline.plan.schema import keys_of

    yield f"{role} {kind}"
    yield from (f"  {line}".rstrip() for line in (getdoc(stage) or "").split("\n"))
    keys = keys_of(stage)
    for title, engine in (("under with:", False), ("beside with:", True)):
        chosen = [key for key in keys if key.engine is engine and _in_yaml(key)]
        if chosen:
            yield ""
            yield f"  {title}"
            yield from _key_lines(chosen)


def _key_lines(keys: "list[Key]") -> Iterator[str]:
    for key in keys:
        yield f"    {key.name}: {key.type}{'; required' if key.required else _default(key)}"
        if key.description:
            yield f"        {key.description}"


def _default(key: "Key") -> str:
    value = _shown(key)
    return "" if value in (None, [], {}) else f"; {value} if left out"


def _shown(key: "Key") -> Any:
    """Return the default as YAML has it."""
    from pipeline.units import format_duration, format_size

    value = key.default
    if hasattr(value, "__struct_fields__") or callable(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if key.unit == "size" and isinstance(value, int):
        return format_size(value)
    if key.unit == "duration" and isinstance(value, int | float):
        return format_duration(value)
    return list(value) if isinstance(value, tuple | set | frozenset) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _in_yaml(key: "Key") -> bool:
    return key.type != "what only Python can give"


def _as_data(role: str, kind: str, stage: "type[Stage]") -> dict[str, Any]:
    from inspect import getdoc

    from pipeline.plan.schema import keys_of

    return {
        "role": role,
        "kind": kind,
        "summary": _sentence(stage),
        "doc": getdoc(stage) or "",
        "keys": [
            {
                "name": key.name,
                "place": "engine" if key.engine else "with",
                "type": key.type,
                "required": key.required,
                "default": None if key.required else _shown(key),
                "description": key.description,
            }
            for key in keys_of(stage)
            if _in_yaml(key)
        ],
    }
