"""What a user's function is like, seen through partials and objects that are called."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

__all__ = ("bare", "is_async", "is_of_kind")


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine: coroutine functions, partials of them, objects with one as call."""
    return is_of_kind(inspect.iscoroutinefunction, function)


def is_of_kind(test: Callable[[Any], bool], function: Any) -> bool:
    """Tell whether a test holds for a function, or for what a call of the object runs."""
    inner = bare(function)
    return test(inner) or (
        not inspect.isclass(inner) and test(inspect.getattr_static(cast(Any, type(inner)), "__call__", None))
    )


def bare(function: Any) -> Any:
    """Return the function within partials."""
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return function  # pyright: ignore[reportUnknownVariableType]
