"""What a user's function is like: synchronous or not, and what it wants to be told."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

from pipeline.stage import Processor

__all__ = ("is_async", "is_generator", "name_of", "refuse_timeout", "wants")


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a coroutine: coroutine functions, partials of them, objects with one as call."""
    return _is(inspect.iscoroutinefunction, function)


def is_generator(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a generator, synchronous or not."""
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def wants(function: Callable[..., Any], name: str) -> bool:
    """Tell whether it has a parameter of this name."""
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except ValueError:  # written in C, and nothing to be told
        return False
    return parameter is not None and parameter.kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )


def name_of(function: Any) -> str:
    """Return what to call it in errors."""
    function = _bare(function)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def refuse_timeout(
    spec: Processor, why: str = "an inline synchronous function can't be interrupted; leave it out"
) -> Iterator[tuple[str, str]]:
    """Give the problem of a timeout where nothing can be interrupted."""
    if spec.timeout is not None:
        yield "timeout", why


def _bare(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return function  # pyright: ignore[reportUnknownVariableType]


def _is(test: Callable[[Any], bool], function: Any) -> bool:
    bare = _bare(function)
    return test(bare) or (
        not inspect.isclass(bare) and test(inspect.getattr_static(cast(Any, type(bare)), "__call__", None))
    )
