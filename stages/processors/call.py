"""Call the user's own function."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any, Literal

import anyio
from msgspec import field

from pipeline.errors import ConfigError
from pipeline.stage import Each, EachAsync, Processor, StageContext, Whole, Work, key
from stages.processors.executors import Executor, in_process, in_threads
from stages.processors.functions import is_async, is_generator, name_of, refuse_timeout, wants

__all__ = ("Call",)

_TOLD = ("context", "keys")
_NO_TIMEOUT = "an inline synchronous function can't be interrupted; use executor: thread"
_ENTERED = ("__aenter__", "__enter__")


class Call(Processor):
    """Call a function with each record, or with the list of a batch's records.

    It returns a record, None (filtered), `Many` or `Failed`; with ``batch``, a list of as many such results, in order;
    with ``aggregate`` any list, which stands for the whole batch. A parameter named ``context`` is told about the
    record (`FunctionContext`), one named ``keys`` gets the keys of a batch's records; both by keyword.

    A class that is an (async) context manager is made and entered once a run, and what it gives is called; a class
    with only ``__call__`` is made once. Any other class is a function that makes a record.
    """

    function: Annotated[
        str | Callable[..., Any], key("What to call, as `module:name`; in Python a function or class.", function=True)
    ]
    batch: Annotated[bool, key("Hand over the list of a batch's records, instead of one record.")] = False
    aggregate: Annotated[
        bool, key("With batch: any list may come back and stands for the whole batch; at least once downstream.")
    ] = False
    executor: Annotated[
        Literal["inline", "thread", "process"],
        key("Where a synchronous function runs: inline, in one of `concurrency` threads, or of as many processes."),
    ] = "inline"
    arguments: Annotated[
        dict[str, Any], key("Further arguments by name: of the function, or of the class when it is made.")
    ] = field(default_factory=dict[str, Any])

    def problems(self) -> Iterable[tuple[str, str]]:
        """Say which keys don't go together, and what of the function doesn't fit them."""
        if self.aggregate and not self.batch:
            yield "aggregate", "needs batch: true"
        if self.aggregate and self.acknowledge == "last_successful":
            yield "acknowledge", "an aggregate's batch fails as a whole; expected each or all_or_nothing"
        for name in _TOLD:
            if name in self.arguments:
                yield "arguments", f"'{name}' is what the engine tells a function; call the argument something else"
        if callable(self.function) and not set(_TOLD) & set(self.arguments):
            yield from self._misfits(self.function)

    def _misfits(self, function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
        if is_generator(function):
            yield "function", f"{name_of(function)} is a generator; return Many([...]) to give several records"
        made = _is_made(function)
        if text := _argument_misfit(function, self.arguments, made):
            yield "arguments", f"{name_of(function)}: {text}"
        called = _called_of(function) if made else function
        if self.executor != "inline" and is_async(called):
            yield "executor", f"{name_of(function)} is asynchronous and runs inline; leave executor out"
        elif self.executor == "process" and not _has_name(function):
            yield "executor", f"process needs a function at the top of a module; {name_of(function)} is not one"
        if self.executor == "inline" and called is not None and not is_async(called):
            yield from refuse_timeout(self, _NO_TIMEOUT)

    def per_record(self) -> bool:
        """Tell that it does, without ``batch``."""
        return not self.batch

    async def open(self, context: StageContext) -> Work:
        """Make and enter the class, if it is one, and return the work.

        :raises ConfigError: when there is nothing to call.
        """
        place = f"stage '{context.name}' (processor call)"
        if not callable(self.function):
            raise ConfigError(f"{place}: function: {self.function!r} was not resolved to a function")
        stack = AsyncExitStack()
        try:
            function = await self._enter(self.function, stack)
            if not callable(function):
                raise ConfigError(
                    f"{place}: function: entering {name_of(self.function)} gives a {type(function).__name__}, "
                    "which can't be called; give it a __call__"
                )
            if self.timeout is not None and self.executor == "inline" and not is_async(function):
                raise ConfigError(f"{place}: timeout: {_NO_TIMEOUT}")
            return self._work(function, stack)
        except BaseException:
            await stack.aclose()
            raise

    async def _enter(self, function: Callable[..., Any], stack: AsyncExitStack) -> Any:
        if not _is_made(function):
            return partial(function, **self.arguments) if self.arguments else function
        made = function(**self.arguments)
        if hasattr(made, "__aenter__"):
            return await stack.enter_async_context(made)
        return stack.enter_context(made) if hasattr(made, "__enter__") else made

    def _work(self, function: Callable[..., Any], stack: AsyncExitStack) -> Work:
        told = wants(function, "context")
        keys = self.batch and wants(function, "keys")
        asynchronous = is_async(function)
        resize: Callable[[int], None] | None = None
        if self.executor != "inline" and not asynchronous:
            places = anyio.CapacityLimiter(self.concurrency)
            resize = partial(setattr, places, "total_tokens")
            run = in_threads(places) if self.executor == "thread" else in_process(places)
            function, asynchronous = _elsewhere(run, function), True
        if self.batch:
            return Whole(function, aggregate=self.aggregate, context=told, keys=keys, close=stack.aclose, resize=resize)
        if asynchronous:
            return EachAsync(function, context=told, close=stack.aclose, resize=resize)
        return Each(function, gives="any", context=told, changes=True, close=stack.aclose)


def _elsewhere(run: Executor, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(records: Any, **told: Any) -> Any:
        return await run(function, records, **told)

    return call


def _is_made(function: Any) -> bool:
    """Tell whether it is a class to make one object of, and not one that is called like a function."""
    return inspect.isclass(function) and _has(function, *_ENTERED, "__call__")


def _called_of(made: Any) -> Any:
    """Return what a call of an object of the class runs; None when only entering it can tell."""
    return next((base.__dict__["__call__"] for base in made.__mro__ if "__call__" in base.__dict__), None)


def _has(function: type, *names: str) -> bool:
    # Asked of the class itself, `hasattr(cls, "__call__")` is true of every class: the metaclass has one.
    return any(name in base.__dict__ for base in function.__mro__ for name in names)


def _argument_misfit(function: Callable[..., Any], arguments: dict[str, Any], made: bool) -> str | None:
    """Return what is wrong with a call, by the signature, or None."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C: the call will tell
        return None
    told = {name: None for name in _TOLD if not made and wants(function, name)}
    try:
        signature.bind(*(() if made else (None,)), **arguments, **told)
    except TypeError as error:
        return str(error)
    return None


def _has_name(function: Any) -> bool:
    """Tell whether another process finds the function by the names of its module and its own."""
    while isinstance(function, partial):
        function = function.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    found: Any = sys.modules.get(str(getattr(function, "__module__", "")))  # pyright: ignore[reportUnknownArgumentType]
    for name in str(getattr(function, "__qualname__", "?")).split("."):  # pyright: ignore[reportUnknownArgumentType]
        found = getattr(found, name, None)
    return found is function and not _is_made(function)
