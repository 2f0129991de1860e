"""Records of both sorts alike: dicts, and typed records (msgspec Structs)."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from pipeline.errors import ConfigError, RecordError
from pipeline.expression import Expression, ExpressionError

__all__ = ("Shape", "by_sort", "compiled", "describe", "shape_of")


def compiled(place: str, key: str, make: Callable[[], Expression]) -> Expression:
    """Return what ``make`` compiles; ``place`` and ``key`` are for the error.

    :raises ConfigError: when the text is not an expression.
    """
    try:
        return make()
    except ExpressionError as error:
        where = f"{key}.{error.field}" if error.field else key
        raise ConfigError(f"{place}: {where}: {error.message} (character {error.column + 1})") from None


def by_sort(plain: Callable[..., Any], typed: Callable[..., Any], origins: bool) -> Callable[..., Any]:
    """Return a function that hands typed records to ``typed`` and all others to ``plain``."""
    struct = msgspec.Struct

    # Dicts are nearly all there is, and asking for the exact class costs a fifth of asking what it is a subclass of.
    def of_record(record: Any) -> Any:
        return plain(record) if record.__class__ is dict or not isinstance(record, struct) else typed(record)

    def of_both(record: Any, origin: Any) -> Any:
        if record.__class__ is dict or not isinstance(record, struct):
            return plain(record, origin)
        return typed(record, origin)

    return of_both if origins else of_record


def describe(value: Any) -> str:
    """Return the type of a value, as errors name it."""
    return "null" if value is None else type(value).__name__


class Shape(NamedTuple):
    """A type of records made from another one.

    ``make`` takes a record of the old type and the values of the added fields, and returns a record of the new type,
    which is made of ``parts``: names of the old one's fields, and indexes of values.
    """

    type: type[msgspec.Struct]
    parts: list[str | int]
    make: Callable[[Any, tuple[Any, ...]], Any]


class _Field(NamedTuple):
    """A field of the new type; ``place`` is its index among the old fields followed by the added values."""

    name: str
    annotation: Any
    encoded: str
    place: int


def shape_of(
    old: type[msgspec.Struct],
    *,
    added: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    kept: Callable[[str], bool] = lambda name: True,
) -> Shape:
    """Return the shape of a type with fields added, then renamed by ``names``, then only those that are ``kept``.

    Fields stay where they were; an added one that was there takes its place. All options of the type stay, so that a
    type without garbage collection stays without.

    :raises RecordError: when a name can't be that of a typed record's field.
    """
    fields = [field for field in _renamed(_fields_of(old, added), names or {}) if kept(field.name)]
    if bad := next((field.name for field in fields if not field.name.isidentifier()), None):
        raise RecordError(f"a typed record ({old.__name__}) can't have a field called {bad!r}")
    config = old.__struct_config__
    new = msgspec.defstruct(
        old.__name__,
        [(field.name, field.annotation, msgspec.field(name=field.encoded)) for field in fields],
        module=old.__module__,
        frozen=config.frozen,
        eq=config.eq,
        order=config.order,
        gc=config.gc,
        weakref=config.weakref,
        tag=config.tag,
        tag_field=config.tag_field,
    )
    places = [field.place for field in fields]
    names_of_old, count = old.__struct_fields__, len(old.__struct_fields__)
    parts = [names_of_old[place] if place < count else place - count for place in places]
    return Shape(new, parts, _maker(old, new, places))


def _fields_of(old: type[msgspec.Struct], added: Sequence[str]) -> list[_Field]:
    fields = {
        field.name: _Field(field.name, field.type, field.encode_name, place)
        for place, field in enumerate(msgspec.structs.fields(old))
    }
    count = len(fields)
    for index, name in enumerate(added):
        encoded = fields[name].encoded if name in fields else name
        fields[name] = _Field(name, Any, encoded, count + index)
    return list(fields.values())


def _renamed(fields: list[_Field], names: Mapping[str, str]) -> list[_Field]:
    replaced = {names[field.name] for field in fields if field.name in names}
    return [
        field._replace(name=names[field.name], encoded=names[field.name]) if field.name in names else field
        for field in fields
        if field.name in names or field.name not in replaced
    ]


def _maker(
    old: type[msgspec.Struct], new: type[msgspec.Struct], places: list[int]
) -> Callable[[Any, tuple[Any, ...]], Any]:
    names = old.__struct_fields__
    # Given one name, attrgetter returns the bare value.
    read: Callable[[Any], tuple[Any, ...]] = (
        attrgetter(*names) if len(names) > 1 else lambda record: tuple(getattr(record, name) for name in names)
    )

    def make(record: Any, values: tuple[Any, ...]) -> Any:
        both = read(record) + values
        return new(*[both[place] for place in places])

    return make
