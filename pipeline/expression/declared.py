"""What the class of typed records declares of its fields."""

import ast
from keyword import iskeyword
from types import UnionType
from typing import Any, Union, get_args, get_origin

__all__ = ("Declared",)


class Declared:
    """The fields of a `msgspec.Struct` type that can be read as attributes, and those that are such types themselves.

    What a field is declared as is not what it must hold: it tells which class to expect, and is to be looked at.
    """

    def __init__(self, type_: type[Any]) -> None:
        self.type = type_
        self._fields: dict[str, Any] = dict.fromkeys(type_.__struct_fields__)
        self._fields.update(_annotations(type_))

    def has(self, name: str) -> bool:
        """Tell whether a field of this name can be read as an attribute."""
        return name in self.type.__struct_fields__ and name.isidentifier() and not iskeyword(name)

    def inner(self, tree: ast.expr) -> "Declared | None":
        """Return the typed record that a path leads to, None where it leads to something else."""
        match tree:
            case ast.Name(id="_record"):
                return self
            case ast.Name(id=name):
                return self._at(name)
            case ast.Attribute(value=base, attr=name) | ast.Subscript(value=base, slice=ast.Constant(value=str(name))):
                above = self.inner(base)
                return above._at(name) if above is not None else None
            case _:
                return None

    def _at(self, name: str) -> "Declared | None":
        found = _struct_in(self._fields.get(name))
        return Declared(found) if found is not None else None


def _annotations(type_: type[Any]) -> dict[str, Any]:
    import msgspec

    return {field.name: field.type for field in msgspec.structs.fields(type_)}


def _struct_in(declared: Any) -> type[Any] | None:
    """Return the one typed record in an annotation, which may be one of a union (with None)."""
    kinds = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    found = [kind for kind in kinds if isinstance(kind, type) and hasattr(kind, "__struct_fields__")]
    return found[0] if len(found) == 1 else None
