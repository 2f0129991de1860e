"""What a user's function is like: synchronous or not, and what it wants to be told."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.functions import bare, is_async, is_of_kind
from pipeline.stage import Processor

__all__ = ("is_async", "is_generator", "name_of", "refuse_timeout", "wants")


def is_generator(function: Callable[..., Any]) -> bool:
    """Tell whether calling it gives a generator, synchronous or not."""
    return is_of_kind(inspect.isgeneratorfunction, function) or is_of_kind(inspect.isasyncgenfunction, function)


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
    function = bare(function)
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def refuse_timeout(
    spec: Processor, why: str = "an inline synchronous function can't be interrupted; leave it out"
) -> Iterator[tuple[str, str]]:
    """Give the problem of a timeout where nothing can be interrupted."""
    if spec.timeout is not None:
        yield "timeout", why
