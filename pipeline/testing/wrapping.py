"""A declaration like another one, whose stage is wrapped when it is opened."""

from collections.abc import Awaitable, Callable
from types import new_class
from typing import Any, TypeVar

from pipeline.stage import Stage

__all__ = ("wrapped",)

S = TypeVar("S", bound=Stage)


def wrapped(spec: S, around: Callable[[Awaitable[Any], Any], Awaitable[Any]]) -> S:
    """Return a declaration with the same keys, kind and identity, whose ``open`` goes through ``around``.

    ``around`` gets what opens the stage, to be awaited, and the context that it is opened with; it returns what the
    engine takes for the open stage.
    """
    declared: Any = type(spec)

    async def open_around(self: Any, context: Any) -> Any:
        return await around(declared.open(self, context), context)

    like: Any = new_class(
        declared.__name__,
        (declared,),
        {"kw_only": True},
        lambda names: names.update(open=open_around, __module__=declared.__module__),
    )
    made: S = like(**{name: getattr(spec, name) for name in declared.__struct_fields__})
    return made
