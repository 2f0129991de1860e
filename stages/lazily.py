"""Imports a stage when it is first named: a run pays for the kinds that it uses."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

__all__ = ("lazily",)


def lazily(package: str, names: Sequence[str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``: each name is a class in the module of the same name in small letters."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{name.lower()}"), name)

    return find
