"""The keys of a declaration, and its types in people's words."""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from pipeline.stage import Batcher, Processor, Sink, Source, Stage, fields_of

__all__ = (
    "LISTS",
    "MAPPINGS",
    "ROLE_CLASSES",
    "SCALARS",
    "Key",
    "Option",
    "is_struct",
    "keys_of",
    "options_of",
    "type_text",
)

ROLE_CLASSES: Mapping[str, type[Stage]] = {
    "source": Source,
    "batcher": Batcher,
    "processor": Processor,
    "sink": Sink,
}


class Key(Struct, frozen=True):
    """One key of a declaration. ``default`` is what it is when left out, if not required."""

    name: str
    annotation: Any
    default: Any
    required: bool
    description: str
    unit: str | None
    engine: bool
    expression: bool
    parameters: tuple[str, ...]
    function: bool
    secret: bool = False
    """Whether its value is shown nowhere."""

    @property
    def type(self) -> str:
        """What a value may be, for people."""
        return type_text(self.annotation)


def keys_of(declared: type[msgspec.Struct]) -> list[Key]:
    """Return the keys of a declaration, those of the engine first. For a stage, a role's own keys are the engine's."""
    found = _keys.get(declared)
    if found is None:
        engine = _engine_keys(declared)
        found = [_key(info, info.name in engine) for info in fields_of(declared)]
        found = [key for key in found if not key.name.startswith("_")]
        _keys[declared] = found
    return found


# --- keys -------------------------------------------------------------------------------------------------------------

_keys: dict[type[msgspec.Struct], list[Key]] = {}


def _engine_keys(declared: type[msgspec.Struct]) -> set[str]:
    for base in declared.__mro__:
        if base in ROLE_CLASSES.values():
            return {info.name for info in fields_of(base) if not _extra(info.type).get("owner")}
    return set()


def _key(info: msgspec.structs.FieldInfo, engine: bool) -> Key:
    extra = _extra(info.type)
    default = info.default
    if info.default_factory is not NODEFAULT:
        default = info.default_factory()
    return Key(
        name=info.name,
        annotation=info.type,
        default=None if default is NODEFAULT else default,
        required=info.required,
        description=next((meta.description for meta in _metas(info.type) if meta.description), ""),
        unit=extra.get("unit"),
        engine=engine,
        expression=bool(extra.get("expression")),
        parameters=tuple(extra.get("parameters", ())),
        function=bool(extra.get("function")),
        secret=bool(extra.get("secret")),
    )


def _metas(annotation: Any) -> Iterator[Meta]:
    """Yield what is said about a value, the outermost first; not what is said about parts of it."""
    if get_origin(annotation) is Annotated:
        yield from (meta for meta in reversed(annotation.__metadata__) if isinstance(meta, Meta))
        yield from _metas(annotation.__origin__)
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _metas(option)


def _extra(annotation: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for meta in _metas(annotation):
        found = {**(meta.extra or {}), **found}
    return found


# --- types ------------------------------------------------------------------------------------------------------------


class Option(NamedTuple):
    """One type that a value may have, and what is said about it."""

    type: Any
    metas: tuple[Meta, ...]

    @property
    def unit(self) -> str | None:
        """The unit of a quantity."""
        return next((str(meta.extra["unit"]) for meta in self.metas if meta.extra and "unit" in meta.extra), None)


def options_of(annotation: Any, metas: tuple[Meta, ...] = ()) -> Iterator[Option]:
    """Yield the types that a value may have."""
    if get_origin(annotation) is Annotated:
        own = tuple(meta for meta in annotation.__metadata__ if isinstance(meta, Meta))
        yield from options_of(annotation.__origin__, metas + own)
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from options_of(option, metas)
    else:
        yield Option(annotation, metas)


_UNITS: Mapping[str, str] = {
    "duration": "a duration with a unit, like 250ms",
    "size": "a size with a unit, like 64KiB",
    "rate": "a rate with a unit, like 100/s",
    "backoff": "a wait or two with units, like 100ms..10s",
}
SCALARS: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LISTS = (list, tuple, set, frozenset, Sequence, Iterable)
MAPPINGS = (dict, Mapping)
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers", "a list": "lists", "a mapping": "mappings"}


def type_text(annotation: Any) -> str:
    """Return what a value may be, for people: ``text or a list of text``."""
    texts: list[str] = []
    extra = _extra(annotation)
    for option in options_of(annotation):
        text = _option_text(option)
        if option.type is str and extra.get("expression"):
            text = "an expression"
        elif option.type is str and extra.get("function"):
            text = "a function, as module:name"
        if text and text not in texts:
            texts.append(text)
    return " or ".join(texts) or "what only Python can give"


def _option_text(option: Option) -> str:
    origin, arguments = get_origin(option.type) or option.type, get_args(option.type)
    if option.unit:
        return _UNITS[option.unit]
    if option.type in SCALARS:
        return SCALARS[option.type]
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(_literal, arguments))
    if origin in LISTS and (not arguments or _plain_type(arguments[0])):
        return f"a list of {_plural(arguments[0])}" if arguments and arguments[0] is not Any else "a list"
    if origin in MAPPINGS:
        of = f" of names to {_plural(arguments[1])}" if arguments and arguments[1] is not Any else ""
        return f"a mapping{of}"
    if option.type is Any:
        return "any value"
    return f"a mapping of {', '.join(k.name for k in keys_of(option.type))}" if is_struct(option.type) else ""


def _plural(annotation: Any) -> str:
    text = type_text(annotation)
    return _PLURALS.get(text, text)


def _plain_type(annotation: Any) -> bool:
    return type_text(annotation) != "what only Python can give"


def _literal(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def is_struct(annotation: Any) -> bool:
    """Tell whether a type is a declaration."""
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)
