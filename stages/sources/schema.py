"""Typed records: a `msgspec.Struct` type from a mapping of fields to the names of their types."""

import math
from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import inspect

__all__ = ("reads_finite", "record_type", "scalar_types", "schema_problems")

TYPES: dict[str, Any] = {
    "any": Any,
    "bool": bool,
    "dict": dict[str, Any],
    "float": float,
    "int": int,
    "list": list[Any],
    "str": str,
}


def schema_problems(schema: Mapping[str, str] | type[msgspec.Struct] | None) -> Iterator[str]:
    """Yield what is wrong with a schema."""
    if not isinstance(schema, Mapping):
        return
    for field, text in schema.items():
        if text.removesuffix("?") not in TYPES:
            names = ", ".join(sorted(TYPES))
            yield f"field {field!r} has the type {text!r}; expected {names}, with ? behind it where it may be missing"
        if not field.isidentifier():
            yield f"field {field!r} can't be a field of a typed record; leave the schema out, or rename the field"


def record_type(schema: Mapping[str, str] | type[msgspec.Struct] | None) -> Any:
    """Return the type of the records, `typing.Any` without a schema.

    A Struct of its own is not watched by the garbage collector: records are trees, and that is worth 1.5 times the
    speed.
    """
    if schema is None:
        return Any
    if not isinstance(schema, Mapping):
        return schema
    return msgspec.defstruct("Record", [_field(*pair) for pair in schema.items()], gc=False, kw_only=True)


def scalar_types(declared: Any) -> dict[str, str]:
    """Return the fields of a Struct type that hold one number, text or truth value, each with the type's name."""
    if declared is Any:
        return {}
    found: dict[str, str] = {}
    for field in msgspec.structs.fields(declared):
        union = get_origin(field.type) in (Union, UnionType)
        kinds = [kind for kind in (get_args(field.type) if union else (field.type,)) if kind is not NoneType]
        if len(kinds) == 1 and kinds[0] in (bool, float, int, str):
            found[field.encode_name] = kinds[0].__name__
    return found


def reads_finite(declared: type[msgspec.Struct]) -> bool:
    """Tell whether a record of a type that is read from JSON holds no NaN and no infinity; False where that may be.

    JSON has no words for them, so they could only come from a default, or from code of the type's own.
    """
    return _reads_finite(inspect.type_info(declared), set())


def _reads_finite(found: inspect.Type, done: set[type]) -> bool:
    match found:
        case inspect.StructType(cls=cls, fields=fields):
            if cls in done:
                return True
            done.add(cls)
            plain = not hasattr(cls, "__post_init__") and all(map(_is_finite_by_default, fields))
            return plain and all(_reads_finite(field.type, done) for field in fields)
        case inspect.DictType(key_type=inspect.StrType() | inspect.AnyType(), value_type=inner):
            return _reads_finite(inner, done)
        case inspect.Metadata(type=inner) | inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return _reads_finite(inner, done)
        case inspect.UnionType(types=inners) | inspect.TupleType(item_types=inners):
            return all(_reads_finite(inner, done) for inner in inners)
        case _:
            return isinstance(found, _WITHOUT_CODE)


def _is_finite_by_default(field: inspect.Field) -> bool:
    if field.default_factory not in (msgspec.NODEFAULT, dict, list):
        return False
    given = field.default
    if isinstance(given, float):
        return math.isfinite(given)
    return given is msgspec.NODEFAULT or given is msgspec.UNSET or isinstance(given, int | str | NoneType)


_WITHOUT_CODE = (
    inspect.AnyType,
    inspect.BoolType,
    inspect.DateTimeType,
    inspect.DateType,
    inspect.DecimalType,
    inspect.EnumType,
    inspect.FloatType,
    inspect.IntType,
    inspect.LiteralType,
    inspect.NoneType,
    inspect.StrType,
    inspect.TimeType,
    inspect.UUIDType,
)
"""What JSON is read as without calling anybody."""


def _field(name: str, text: str) -> tuple[str, Any] | tuple[str, Any, Any]:
    declared = TYPES[text.removesuffix("?")]
    return (name, declared | None, None) if text.endswith("?") else (name, declared)
