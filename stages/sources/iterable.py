"""The source of kind `iterable`: any iterable of Python, asynchronous or not."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Sized
from collections.abc import Iterable as PlainIterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from typing import Annotated, Any, ClassVar, cast

import anyio

from pipeline.errors import ConfigError, StageError
from pipeline.sizes import estimate
from pipeline.stage import Chunk, Progress, Reader, Source, SourceContext, key

__all__ = ("AsyncReader", "Iterable", "PlainReader")

_CHUNK = 500
_TOGETHER = 0.005  # seconds; a slow iterator hands over what it has, so that the loop and the next stage get their turn
_CLOSING = 5.0  # seconds that an iterator may take to clean up
_RECIPE = "a pipeline can be run again, a generator goes by once: give the function that makes it, not its call"


class Iterable(Source):
    """Reads records from an iterable or async iterable, or from what a function without arguments returns.

    Records are handed on as soon as the iterator makes us wait; nothing is pulled while nobody has room. What was not
    settled in a crash is gone: an iterable can't be read again. For Python only.
    """

    shares: ClassVar[bool] = True
    python_only: ClassVar[bool] = True

    records: Annotated[Any, key("The records, or a function that returns them: then it can be run several times.")]

    def replays(self) -> bool:
        """Return False: an iterator goes one way."""
        return False

    async def open(self, context: SourceContext) -> Reader:
        """Begin to iterate.

        :raises ConfigError: when there is nothing to iterate over, or only a generator that an earlier run used up.
        """
        records: Any = self.records
        if callable(records) and not isinstance(records, PlainIterable | AsyncIterable):
            records = records()
        if _is_used_up(records):
            raise ConfigError(f"stage {context.name!r} (source iterable): the generator is used up; {_RECIPE}")
        if isinstance(records, AsyncIterable):
            return AsyncReader(_any(records), context.name)
        if isinstance(records, PlainIterable) and not isinstance(records, str | bytes | dict):
            return PlainReader(_any(records), context.warn)
        other = _any(records)
        if inspect.iscoroutine(other):
            other.close()
        kind = type(other).__name__
        raise ConfigError(f"stage {context.name!r} (source iterable): expected an iterable of records, not a {kind}")


class PlainReader(Reader):
    """Reads a plain iterable, on the loop: 500 records or 5 ms a chunk."""

    prompt: ClassVar[bool] = True

    def __init__(self, records: PlainIterable[Any], warn: Callable[[str], None] = lambda text: None) -> None:
        self._iterator = iter(records)
        self._warn = warn
        self._once = self._iterator is records
        self._quick = isinstance(records, list | tuple | range)
        self._total = len(records) if isinstance(records, Sized) else None
        self._done = 0

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield the records."""
        error: Exception | None = None
        while error is None:
            records: list[Any] = []
            try:
                self._fill(records)
            except Exception as raised:  # what came before it counts
                error = raised
            if records:
                self._done += len(records)
                yield Chunk(records, self._done, size=estimate(records))
            elif error is None:
                if self._once and not self._done and not inspect.isgenerator(self._iterator):
                    self._warn(f"the iterator gave no records; if an earlier run has used it up: {_RECIPE}")
                return
        raise error

    def _fill(self, records: list[Any]) -> None:
        if self._quick:
            records.extend(islice(self._iterator, _CHUNK))
        else:
            _some(self._iterator, records)

    def progress(self) -> Progress:
        """Tell how many records were read, and of how many if that is known."""
        return Progress(self._done, self._total)

    async def close(self) -> None:
        """Close a generator, so that its `finally` runs."""
        iterator = self._iterator
        # One that was never begun has nothing to clean up, and a dry run must leave it to the run.
        if inspect.isgenerator(iterator) and inspect.getgeneratorstate(iterator) != inspect.GEN_CREATED:
            iterator.close()


class AsyncReader(Reader):
    """Reads an async iterable, whose every step and whose end run in one task of its own.

    A task of its own, because only so can records that came be handed over while the iterator is still waiting for the
    next one; and one task, because timeouts and task groups inside a generator belong to the task that runs it.
    """

    def __init__(self, records: AsyncIterable[Any], name: str) -> None:
        self._records = records
        self._name = name
        self._came: list[Any] = []
        self._done = 0
        self._wanted = asyncio.Event()
        self._ready = asyncio.Event()

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield what came, as soon as there is any."""
        # A generator may not yield inside of a task group; this task ends with the read, below.
        task = asyncio.create_task(self._pull(), name=f"iterate {self._name}")
        task.add_done_callback(lambda _: self._ready.set())
        try:
            while records := await self._take(task):
                self._done += len(records)
                yield Chunk(records, self._done, size=estimate(records))
            if task.cancelled():
                raise StageError(f"stage {self._name!r} (source iterable): the iterator was cancelled")
            task.result()
        finally:
            await _end(task)

    def progress(self) -> Progress:
        """Tell how many records were read."""
        return Progress(self._done, None)

    async def _take(self, task: asyncio.Task[None]) -> list[Any]:
        """Return what came, at least one record; none when the iterator has ended."""
        if not task.done():
            self._wanted.set()
            await self._ready.wait()
            self._wanted.clear()
            self._ready.clear()
        records, self._came = self._came, []
        return records

    async def _pull(self) -> None:
        async with _iterating(self._records) as iterator:
            await self._wanted.wait()
            async for record in iterator:
                self._came.append(record)
                self._ready.set()
                if len(self._came) >= _CHUNK:
                    self._wanted.clear()
                if not self._wanted.is_set():
                    await self._wanted.wait()


def _is_used_up(records: Any) -> bool:
    if inspect.isgenerator(records):
        return inspect.getgeneratorstate(records) == inspect.GEN_CLOSED
    return inspect.isasyncgen(records) and _any(records).ag_frame is None


def _iterating(records: AsyncIterable[Any]) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
    # An aiostream stream is a recipe: only its `stream()` may be iterated, within its context.
    stream = getattr(records, "stream", None)
    if callable(stream):
        return cast(AbstractAsyncContextManager[AsyncIterator[Any]], stream())
    return _closing(records)


@asynccontextmanager
async def _closing(records: AsyncIterable[Any]) -> AsyncGenerator[AsyncIterator[Any]]:
    iterator = aiter(records)
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with anyio.move_on_after(_CLOSING, shield=True):
        await asyncio.wait([task])
    if task.done() and not task.cancelled():
        task.exception()  # or asyncio would print that nobody asked


def _some(iterator: Iterator[Any], records: list[Any]) -> None:
    until = time.monotonic() + _TOGETHER
    append, now = records.append, time.monotonic
    for record in islice(iterator, _CHUNK):
        append(record)
        if now() >= until:
            break


def _any(value: Any) -> Any:
    # What isinstance says of an Any is that it holds unknown things; this forgets it again.
    return value
