"""aiostream's pipe operators as processors, by an allow-list.

Nothing here imports aiostream: an operator brings all it needs. ``pipe.map(f)`` is a function made in `aiostream.core`
that remembers its operator and the arguments; that is how it is known. Operators that pull ahead of what they give, or
give something before they pull, are refused: nobody could tell which record a result belongs to.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any

from pipeline.errors import ConfigError
from pipeline.stage import Processor, StageContext, Streamed, key

__all__ = ("Operator", "adapt")

Stream = Callable[[AsyncIterator[Any]], AsyncIterator[Any]]

_ALONE = frozenset({"map", "amap", "smap", "starmap", "filter", "action", "print"})
"""One record in, one or none out, nothing remembered."""
_GROUPING = frozenset({"chunks"})
_REMEMBERING = frozenset({"take", "skip", "enumerate", "accumulate", "pairwise"})
"""At most one out for one in, by what came before: run, without a promise to resume."""
_WITH_TASKS = frozenset({"map", "amap", "starmap", "action"})
"""Run a task a record, unless told to run one at a time."""
_OF_ONE_SOURCE = frozenset({"map", "amap", "smap"})
"""Take further streams behind the function."""

_EXPLODE = "processors.Explode(function=...), which makes several records of one"
_MERGE = "Pipeline.merge(...), which joins pipelines"
_AGGREGATE = "processors.Call(..., batch=True, aggregate=True) behind a batcher, or sinks.Collect()"
_INSTEAD = {
    "chain": _MERGE,
    "concat": _EXPLODE,
    "concatmap": _EXPLODE,
    "cycle": "sources.Iterable(itertools.cycle(...))",
    "delay": "an `await anyio.sleep(...)` before the run",
    "dropwhile": "processors.Filter(...)",
    "flatmap": _EXPLODE,
    "flatten": _EXPLODE,
    "getitem": "processors.Filter(...)",
    "list": _AGGREGATE,
    "merge": _MERGE,
    "reduce": _AGGREGATE,
    "skiplast": "processors.Filter(...)",
    "spaceout": "a processors.Call(...) that sleeps",
    "switch": _EXPLODE,
    "switchmap": _EXPLODE,
    "takelast": "sinks.Collect()",
    "takewhile": "processors.Filter(...)",
    "timeout": "the key `timeout` of a stage",
    "until": "processors.Filter(...)",
    "zip": _MERGE,
    "ziplatest": _MERGE,
}


class Operator(Processor, kw_only=True):
    """A stream operator from another library; made by `adapt`. Runs over the records one by one, in lock-step."""

    operator: Annotated[str, key("What the operator is called, like `pipe.map`.")]
    stream: Annotated[Stream, key("The operator: takes an async iterator and returns one.")]
    groups: Annotated[bool, key("Whether one result stands for the several records that it is a list of.")] = False
    remembers: Annotated[bool, key("Whether a result depends on the records before; then it can't resume.")] = False

    def resumable(self) -> bool:
        """Say no for an operator with memory: it would begin again with none."""
        return not self.remembers

    def per_record(self) -> bool:
        """Tell that it is fed single records."""
        return True

    async def open(self, context: StageContext) -> Streamed:
        """Return the operator."""
        return Streamed(self.stream, groups=self.groups)


def adapt(piped: Any) -> Operator | None:
    """Return an aiostream pipe operator, like ``pipe.map(f)``, as a processor; None for anything else.

    :raises ConfigError: for an operator that can't run in lock-step; says what to use instead.
    """
    if _is_uncalled(piped):
        raise ConfigError(f"pipe.{_name_of(piped)} was not called; write pipe.{_name_of(piped)}(...)")
    if not isinstance(piped, FunctionType) or piped.__module__ != "aiostream.core":
        return None
    call = _Call.read(piped)
    call.check()
    return Operator(
        operator=f"pipe.{call.name}",
        stream=call.stream(),
        groups=call.name in _GROUPING,
        remembers=call.name in _REMEMBERING,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """An operator and the arguments it was called with."""

    operator: Any
    name: str
    args: tuple[Any, ...]
    options: Mapping[str, Any]

    @classmethod
    def read(cls, piped: FunctionType) -> "_Call":
        """Read what the function remembers."""
        kept = inspect.getclosurevars(piped).nonlocals
        try:
            operator, args, options = kept["operator_instance"], kept["args"], kept["kwargs"]
        except KeyError:
            raise ConfigError("this version of aiostream makes its pipe operators another way; 0.7 to 0.8 do") from None
        return cls(operator, str(type(operator).__name__), tuple(args), dict(options))

    def check(self) -> None:
        """Refuse what can't run in lock-step."""
        if not str(type(self.operator).__module__).startswith("aiostream."):
            raise ConfigError(
                f"operator '{self.operator}' is not one of aiostream's own, and nobody knows how far ahead it reads; "
                "use processors.Call(...)"
            )
        if self.name not in _ALONE | _GROUPING | _REMEMBERING:
            instead = _INSTEAD.get(self.name, "processors.Call(...)")
            raise ConfigError(f"pipe.{self.name} can't settle its records one by one; use {instead}")
        if self.name in _OF_ONE_SOURCE and len(self.args) > 1:
            raise ConfigError(f"pipe.{self.name} over several streams can't settle its records; use {_MERGE}")
        limit = self._argument("task_limit")
        if limit not in (None, 1):
            raise ConfigError(
                f"pipe.{self.name}(..., task_limit={limit}) would read ahead; "
                f"use processors.Call(..., concurrency={limit})"
            )
        if self.name == "accumulate" and self._argument("initializer") is not None:
            raise ConfigError(
                "pipe.accumulate(..., initializer=...) gives a result before it has a record; "
                "leave out initializer and begin in the function"
            )

    def stream(self) -> Stream:
        """Return the operator as a function, set to run one at a time."""
        options = dict(self.options)
        if self.name in _WITH_TASKS and self._needs_limit():
            options["task_limit"] = 1
        raw, args = self.operator.raw, self.args

        def run(source: AsyncIterator[Any]) -> AsyncIterator[Any]:
            result: AsyncIterator[Any] = raw(source, *args, **options)
            return result

        return run

    def _needs_limit(self) -> bool:
        # `map` refuses a limit for a function that isn't asynchronous, by the same test.
        asynchronous = self.name == "amap" or inspect.iscoroutinefunction(self._argument("func"))
        return asynchronous and self._argument("task_limit") is None

    def _argument(self, name: str) -> Any:
        bound = inspect.signature(self.operator.raw).bind(None, *self.args, **self.options)
        return bound.arguments.get(name)


def _is_uncalled(piped: Any) -> bool:
    return str(getattr(piped, "__module__", "")).startswith("aiostream.stream") and str(
        getattr(piped, "__qualname__", "")
    ).endswith(".pipe")


def _name_of(piped: Any) -> str:
    return str(piped.__qualname__).removesuffix(".pipe")
