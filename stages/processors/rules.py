"""What a field's value must be, as people write it, and what msgspec checks.

::

    text        = type ["?"] {constraint}          "int >= 0", "str? len <= 80", "list[int >= 0] len >= 1"
    type        = "str" | "int" | "float" | "bool" | "list" | "list[" text "]" | "dict" | "date" | "time" | "datetime"
                | "any"
    constraint  = (">=" | ">" | "<=" | "<") number | "len" (">=" | "<=") number

``?`` says that the value may be null or missing. The long form is a mapping: ``type`` (a text as above), ``optional``,
``ge``, ``gt``, ``le``, ``lt``, ``multiple_of``, ``min_length``, ``max_length``, ``pattern`` (searched for in a text),
``one_of`` (texts and whole numbers), ``of`` (what the elements of a list must be), ``fields`` (what those of a dict
must be).
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, cast

import msgspec

from stages.processors.records import describe

__all__ = ("Rule", "explain", "read_rule", "type_of")

_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list[Any],
    "dict": dict[str, Any],
    "date": datetime.date,
    "time": datetime.time,
    "datetime": datetime.datetime,
    "any": Any,
}
_BOUNDS = {">=": "ge", ">": "gt", "<=": "le", "<": "lt"}
_LENGTHS = {">=": "min_length", "<=": "max_length"}
_NUMBERS = ("int", "float")
_FITTING = {
    "ge": _NUMBERS,
    "gt": _NUMBERS,
    "le": _NUMBERS,
    "lt": _NUMBERS,
    "multiple_of": _NUMBERS,
    "min_length": ("str", "list", "dict"),
    "max_length": ("str", "list", "dict"),
    "pattern": ("str",),
}
_KEYS = ("type", "optional", *_FITTING, "one_of", "of", "fields")
_NAME = re.compile(r"\s*([A-Za-z_]+)")
_CONSTRAINT = re.compile(r"[\s,]*(len\s*)?(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)")


class Rule(NamedTuple):
    """What a value must be: a type for msgspec, and whether the value may be null or missing."""

    annotation: Any
    optional: bool


def read_rule(written: str | Mapping[str, Any]) -> Rule:
    """Return the rule that a text or a mapping stands for.

    :raises ValueError: when it can't be read; says what would do.
    """
    if isinstance(written, str):
        rule, rest = _read_text(written)
        if rest.strip():
            raise ValueError(f"can't read {rest.strip()!r} in {written!r}; a type is written like 'int >= 0' or 'str?'")
        return rule
    return _read_mapping(written)


def type_of(rules: Mapping[str, Rule], *, forbid_unknown: bool = False) -> type[msgspec.Struct]:
    """Return a type for msgspec of records that fit the rules."""
    return msgspec.defstruct(
        "Checked", list(_fields_of(rules)), kw_only=True, forbid_unknown_fields=forbid_unknown, gc=False
    )


def explain(error: str, record: Any) -> str:
    """Return msgspec's error about a record in our words: the field, what was expected, and what is there."""
    text, _, path = error.partition(" - at `$")
    path = path.removesuffix("`").removeprefix(".")
    text = re.sub("`([^`]*)`", lambda found: re.sub("object|array", _our_word, found[1]), text)
    if missing := re.fullmatch(r"Object (missing required|contains unknown) field (.*)", text):
        field = f"{path}.{missing[2]}" if path else missing[2]
        return f"field '{field}' is {'missing' if missing[1].startswith('missing') else 'unknown'}"
    text = text[:1].lower() + text[1:]
    if text.startswith("invalid enum value"):
        return f"field '{path}': {text.removeprefix('invalid enum value ')} is none of the values allowed"
    if not path:
        return f"record: {text}"
    if ", got " not in text:
        text += f", got {_measure(_reach(record, path))}"
    return f"field '{path}': {text}"


def _our_word(found: re.Match[str]) -> str:
    return "dict" if found[0] == "object" else "list"


def _fields_of(rules: Mapping[str, Rule]) -> Iterator[tuple[str, Any, Any]]:
    for index, (name, rule) in enumerate(rules.items()):
        plain = name.isidentifier() and not name.startswith("__")
        annotation = rule.annotation | None | msgspec.UnsetType if rule.optional else rule.annotation
        default = msgspec.UNSET if rule.optional else msgspec.NODEFAULT
        yield name if plain else f"_odd_{index}", annotation, msgspec.field(default=default, name=name)


def _read_text(text: str) -> tuple[Rule, str]:
    found = _NAME.match(text)
    name = found[1] if found else ""
    if name not in _TYPES:
        raise ValueError(_unknown(name or text, "type", tuple(_TYPES)))
    annotation, rest = _TYPES[name], text[found.end() if found else 0 :]
    if rest.startswith("[") and name == "list":
        inner, rest = _read_text(rest[1:])
        if not rest.startswith("]"):
            raise ValueError(f"']' is missing in {text!r}")
        annotation, rest = _list_of(inner), rest[1:]
    optional = rest.startswith("?")
    limits, rest = _read_constraints(rest[optional:], name)
    return Rule(_constrained(annotation, name, limits), optional), rest


def _read_constraints(rest: str, name: str) -> tuple[dict[str, Any], str]:
    limits: dict[str, Any] = {}
    while found := _CONSTRAINT.match(rest):
        table = _LENGTHS if found[1] else _BOUNDS
        if found[2] not in table:
            raise ValueError(f"'len' is compared by >= or <=, not by {found[2]}")
        if table[found[2]] in limits:
            raise ValueError(f"'{found[2]}' is given twice")
        whole = "." not in found[3]
        if not whole and (name != "float" or found[1]):
            raise ValueError(f"{found[3]} must be a whole number here")
        limits[table[found[2]]] = int(found[3]) if whole else float(found[3])
        rest = rest[found.end() :]
    return limits, rest


def _read_mapping(written: Mapping[str, Any]) -> Rule:
    for name in written:
        if name not in _KEYS:
            raise ValueError(_unknown(str(name), "key", _KEYS))
    default = "dict" if "fields" in written else "list" if "of" in written else None
    text = written.get("type", default)
    if not isinstance(text, str):
        raise ValueError("'type' is missing" if text is None else "'type' must be a text like 'int >= 0'")
    rule = read_rule(text)
    limits = {name: value for name, value in written.items() if name in _FITTING}
    base = cast(re.Match[str], _NAME.match(text))[1]
    annotation = _constrained(_structured(rule.annotation, base, written), base, limits)
    optional = written.get("optional", rule.optional)
    if not isinstance(optional, bool):
        raise ValueError("'optional' must be true or false")
    return Rule(annotation, optional)


def _structured(annotation: Any, base: str, written: Mapping[str, Any]) -> Any:
    given = [name for name in ("one_of", "of", "fields") if name in written]
    if not given:
        return annotation
    needed = {"one_of": ("str", "int"), "of": ("list",), "fields": ("dict",)}
    if len(given) > 1 or base not in needed[given[0]] or annotation is not _TYPES[base]:
        raise ValueError(f"'{given[0]}' goes with a plain type {' or '.join(needed[given[0]])}, and alone")
    if given[0] == "one_of":
        return _one_of(written["one_of"], _TYPES[base])
    if given[0] == "of":
        return _list_of(read_rule(written["of"]))
    if not isinstance(written["fields"], Mapping):
        raise ValueError("'fields' must give each field its type")
    return type_of({name: read_rule(field) for name, field in cast(Mapping[str, Any], written["fields"]).items()})


def _one_of(values: Any, base: type) -> Any:
    if not isinstance(values, list) or not _are_all(values, base):
        raise ValueError(f"'one_of' must be a list of values of type {base.__name__}")
    return Literal[tuple(values)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _are_all(values: Any, base: type) -> bool:
    return bool(values) and all(type(value) is base for value in values)


def _constrained(annotation: Any, base: str, limits: Mapping[str, Any]) -> Any:
    for name in limits:
        if base not in _FITTING[name]:
            raise ValueError(f"'{name}' goes with {', '.join(_FITTING[name])}, not with {base}")
    if not limits:
        return annotation
    try:
        constrained = Annotated[annotation, msgspec.Meta(**limits)]
        msgspec.json.Decoder(constrained)  # sees what does not go together
    except (TypeError, ValueError, re.error) as error:
        raise ValueError(f"{error}") from None
    return constrained


def _list_of(rule: Rule) -> Any:
    return GenericAlias(list, (rule.annotation | None if rule.optional else rule.annotation,))


def _unknown(name: str, what: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    near = get_close_matches(name, known, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    return f"unknown {what} '{name}'; {hint}"


def _reach(value: Any, path: str) -> Any:
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            key = int(index) if index else name
            value = getattr(value, name) if isinstance(value, msgspec.Struct) else value[key]
        except (LookupError, AttributeError, TypeError):  # a name with a dot in it
            return ...
    return value


def _measure(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{describe(value)} {value}"
    if isinstance(value, (str, list, dict)):
        return f"{describe(value)} of length {len(cast(list[Any], value))}"
    return "another value" if value is ... else describe(value)
