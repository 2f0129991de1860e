"""Typed records with room for the fields that expressions compute on their way.

A typed record (a `msgspec.Struct`) has the fields of its type and no others, so a stage that computes one must make a
record of another type, field by field. Where the plan knows what will be computed, a source decodes into a type that
has these fields already (`widen`), and the stages fill them in. Until then they are `msgspec.UNSET`, which is neither
encoded nor read: who gets a record that is not complete is given one that has only what there is (`narrowed`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from keyword import iskeyword
from typing import Any, ClassVar, cast

import msgspec

from pipeline.projection import Access

__all__ = ("Widened", "fill", "has_room", "narrowed", "widen", "widener")


class Widened(msgspec.Struct, gc=False):
    """A record of a type made by `widen`."""

    __declared__: ClassVar[type[msgspec.Struct]]
    """The type without the computed fields."""
    __computed__: ClassVar[tuple[str, ...]] = ()
    """The fields that are computed, in the order in which they are written."""
    __narrower__: ClassVar[dict[tuple[str, ...], type[msgspec.Struct]]]
    """The types of records that have some of them."""


class _Absent:
    """The type of a field that text must not have: it is not one of the declared type."""


def widen(declared: Any, accesses: Iterable[Access]) -> type[Widened] | None:
    """Return the type of records with room for what processors in order compute; None where nothing would be won.

    It is JSON that it is decoded from, by a decoder whose ``dec_hook`` refuses: a field of the text that has the name
    of a computed one would be taken for it.
    """
    if not _is_plain(declared):
        return None
    fields = msgspec.structs.fields(declared)
    taken = {name for field in fields for name in (field.name, field.encode_name)}
    computed: dict[str, None] = {}
    for access in accesses:
        # What is read before it is computed is a field that is missing.
        taken |= {path[0] for path in access.reads}.difference(computed)
        if any(name in taken or name in computed or not _fits(name) for name in access.sets):
            return None
        computed |= dict.fromkeys(access.sets)
    return _type_of(declared, tuple(computed)) if computed else None


def has_room(kind: type[Any], names: Collection[str]) -> bool:
    """Tell whether records of a type have all of these fields, to be computed."""
    return bool(names) and issubclass(kind, Widened) and set(names) <= set(kind.__computed__)


def fill(record: Any, names: Sequence[str], values: Iterable[Any]) -> bool:
    """Write computed fields into a record that has room for them; False when it has not, or has them already.

    So each is written once: a record that has them may have been seen by others.
    """
    kind: type[Any] = record.__class__
    if not has_room(kind, names) or getattr(record, names[0]) is not msgspec.UNSET:
        return False
    for name, value in zip(names, values, strict=True):
        setattr(record, name, value)
    return True


def widener(kind: type[Widened]) -> Callable[[Any], Widened]:
    """Return what makes a record of the type of one of the declared type."""
    names = kind.__declared__.__struct_fields__
    return lambda record: kind(**{name: getattr(record, name) for name in names})


def narrowed(record: Any) -> Any:
    """Return a record with the fields that it has: one that is not complete as one of the type that it would be of."""
    if not isinstance(record, Widened):
        return record
    computed = tuple(name for name in record.__computed__ if getattr(record, name) is not msgspec.UNSET)
    if len(computed) == len(record.__computed__):
        return record
    names = (*record.__declared__.__struct_fields__, *computed)
    kind = record.__narrower__.get(computed)
    if kind is None:
        kind = record.__narrower__[computed] = _type_of(record.__declared__, computed)
    return kind(**{name: getattr(record, name) for name in names})


def _is_plain(declared: Any) -> bool:
    """Tell whether a type has nothing but fields, so that one with the same and some more is as good."""
    if not (isinstance(declared, type) and issubclass(declared, msgspec.Struct)):
        return False
    config = declared.__struct_config__
    by_hand = any(hasattr(declared, name) for name in ("__post_init__", "__parameters__"))
    own = any(getattr(declared, name) is not getattr(msgspec.Struct, name) for name in ("__init__", "__setattr__"))
    return not (config.frozen or config.array_like or config.tag is not None or by_hand or own)


def _type_of(declared: type[msgspec.Struct], computed: tuple[str, ...]) -> type[Widened]:
    config = declared.__struct_config__
    fields = [(field.name, field.type, _field(field)) for field in msgspec.structs.fields(declared)]
    made = msgspec.defstruct(
        declared.__name__,
        [*fields, *((name, _Absent, msgspec.UNSET) for name in computed)],
        bases=(Widened,),
        module=declared.__module__,
        namespace={"__declared__": declared, "__computed__": computed, "__narrower__": {(): declared}},
        forbid_unknown_fields=config.forbid_unknown_fields,
        kw_only=True,
        eq=config.eq,
        order=config.order,
        gc=config.gc,
        weakref=config.weakref,
    )
    return cast(type[Widened], made)


def _field(info: msgspec.structs.FieldInfo) -> Any:
    if info.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=info.default_factory, name=info.encode_name)
    return msgspec.field(default=info.default, name=info.encode_name)


def _fits(name: str) -> bool:
    """Tell whether a field can be an attribute, by a name that code can be written with."""
    return name.isascii() and name.isidentifier() and not iskeyword(name) and not name.startswith("_")
