"""Stages opened without an engine, and what the engine would hand them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, overload

import msgspec

from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.stage import (
    NamedFile,
    Processor,
    Reader,
    Resume,
    Sink,
    SinkContext,
    Source,
    SourceContext,
    Stage,
    StageContext,
    Work,
    Writer,
)

__all__ = ("MemoryState", "batch_of", "context_for", "opened")

LINEAGE = "0123456789abcdef"


class MemoryState:
    """Keyed state in memory (see `pipeline.stage.KeyedState`): every value a number left is kept."""

    def __init__(self) -> None:
        self._kept: dict[bytes, list[tuple[str, int, bytes]]] = {}

    def get(self, key: Any, source: str, number: int) -> Any:
        """Return the value that the highest number below left for the key; None if there is none."""
        left = self._kept.get(msgspec.json.encode(key), ())
        before = [change for change in left if change[0] != source or change[1] < number]
        return msgspec.json.decode(before[-1][2]) if before else None

    def put(self, key: Any, source: str, number: int, value: Any) -> None:
        """Let a number leave a value for a key."""
        left = self._kept.setdefault(msgspec.json.encode(key), [])
        left[:] = [change for change in left if change[:2] != (source, number)]
        left.append((source, number, msgspec.json.encode(value)))
        left.sort(key=lambda change: change[1])

    def crash(self, number: int) -> None:
        """Forget what records of this and larger numbers left: they were not settled."""
        for left in self._kept.values():
            left[:] = [change for change in left if change[1] < number]


def batch_of(*records: Any, source: str = "source", start: int = 0) -> Batch:
    """Return a batch of records of one source, numbered from ``start``."""
    numbers = range(start, start + len(records))
    spans = [(source, numbers.start, numbers.stop)] if records else []
    return Batch(list(records), source, numbers, spans=spans, size=len(records))


@overload
def opened(stage: Source, **context: Any) -> AbstractAsyncContextManager[Reader]: ...
@overload
def opened(stage: Processor, **context: Any) -> AbstractAsyncContextManager[Work]: ...
@overload
def opened(stage: Sink, **context: Any) -> AbstractAsyncContextManager[Writer]: ...
def opened(stage: Source | Processor | Sink, **context: Any) -> AbstractAsyncContextManager[Any]:
    """Open a stage and close it at the end; gives what its ``open`` returned.

    ``context`` are fields of the context that the stage is opened with, like ``cursor=`` or ``position=``; the others
    are what a first run with a state file would say. A stage that is `stateful` gets a `MemoryState`.
    """
    return _opened(stage, context)


@asynccontextmanager
async def _opened(stage: Source | Processor | Sink, fields: dict[str, Any]) -> AsyncGenerator[Any]:
    result: Any = await stage.open(context_for(stage, **fields))
    try:
        yield result
    finally:
        if not isinstance(result, Work):
            await result.close()
        elif result.close is not None:
            await result.close()


def context_for(stage: Stage, **fields: Any) -> Any:
    """Return the context to open a stage with."""
    common: dict[str, Any] = {
        "name": stage.name or type(stage).__name__.lower(),
        "pipeline": "test",
        "clock": SystemClock(),
        "lineage": LINEAGE,
    }
    if isinstance(stage, Source):
        return SourceContext(**(common | fields))
    if isinstance(stage, Sink):
        exact = stage.resumes() in (Resume.POSITION, Resume.TRANSACTION)
        common["delivery"] = "exactly_once" if exact else "at_least_once"
        common["announce"] = _ignore
        return SinkContext(**(common | fields))
    if isinstance(stage, Processor) and stage.stateful():
        common["state"] = MemoryState()
    return StageContext(**(common | fields))


async def _ignore(files: Sequence[NamedFile]) -> None:
    """Take note of new files, as the state file would."""
