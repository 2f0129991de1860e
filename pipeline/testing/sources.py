"""The contract of a source, as a check that any source can be put to."""

import copy
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from pipeline.batch import Failed
from pipeline.stage import Chunk, Reader, Source
from pipeline.testing.cancelling import cancel_points, interrupted
from pipeline.testing.judging import check_declaration, same, shown, through_json, value_of
from pipeline.testing.opening import context_for

__all__ = ("check_source",)

Feed = Callable[[Reader], object]

_CURSORS = 40
"""Cursors that are read on from; of more, so many are chosen evenly."""


@dataclass(slots=True)
class _Read:
    """What was read: the value of each record, and the cursor that each chunk left behind."""

    values: list[Any] = field(default_factory=list[Any])
    cursors: list[tuple[int, Any]] = field(default_factory=list[tuple[int, Any]])


async def check_source(make: Callable[[], Source], *, feed: Feed | None = None, **context: Any) -> list[Any]:
    """Check that a source keeps the contract of `pipeline.stage.Source`; returns its records.

    ``make`` returns a declaration, equal each time, whose source ends; ``feed`` is called with each reader that was
    opened, for a source that somebody has to feed. ``context`` are fields of the context, as in `opened`. Checked are:
    what chunks say of their records, order, opening twice, reading from every cursor, a cancel at each await, and
    closing at any time.

    :raises AssertionError: says what is broken.
    """
    check_declaration(make(), make())
    check = _Check(make, feed, context)
    whole = await check.read()
    same(whole.values, (await check.read()).values if make().replays() else whole.values, "opened again, it reads")
    await check.open_side_by_side(whole)
    if make().replays():
        await check.every_cursor(whole)
    await check.every_await(whole)
    return whole.values


class _Check:
    def __init__(self, make: Callable[[], Source], feed: Feed | None, context: dict[str, Any]) -> None:
        self._make = make
        self._feed = feed
        self._context = context

    async def open(self, cursor: Any = None) -> Reader:
        source = self._make()
        reader = await source.open(context_for(source, **{**self._context, "cursor": cursor}))
        if not isinstance(reader, Reader):
            raise AssertionError(f"{type(source).__name__}.open() must return a Reader, not {type(reader).__name__}")
        if self._feed is not None:
            self._feed(reader)
        return reader

    async def read(self, cursor: Any = None) -> _Read:
        reader = await self.open(cursor)
        try:
            read = _Read()
            async with aclosing(_chunks(reader)) as chunks:
                async for chunk in chunks:
                    _take(read, chunk)
            for _, each in read.cursors:
                await reader.forget(each)
            return read
        finally:
            await reader.close()

    async def open_side_by_side(self, whole: _Read) -> None:
        """Two readers of one declaration don't disturb each other, and one that never read is closed."""
        if not self._make().replays():
            await (await self.open()).close()
            return
        first, second = await self.open(), await self.open()
        read = _Read()
        try:
            async with aclosing(_chunks(first)) as chunks, aclosing(_chunks(second)) as others:
                async for chunk in chunks:
                    _take(read, chunk)
                    await anext(others, None)
        finally:
            await first.close()
            await second.close()
        same(whole.values, read.values, "read beside another reader, it gives")
        await (await self.open()).close()

    async def every_cursor(self, whole: _Read) -> None:
        every = max(1, len(whole.cursors) // _CURSORS)
        for count, cursor in [*whole.cursors[::every], *whole.cursors[-1:]]:
            rest = await self.read(cursor)
            same(whole.values[count:], rest.values, f"read on from cursor {shown(cursor)}, behind record {count}")
        if whole.values and not whole.cursors:
            raise AssertionError("there are records and no cursor")

    async def every_await(self, whole: _Read) -> None:
        """Cancelled while it waits, a reader can be closed, and what it gave before counts."""
        for at in cancel_points():
            read, unharmed = await self._read_cancelled_at(at)
            same(whole.values[: len(read.values)], read.values, f"cancelled at await {at}, it had read")
            if self._make().replays():
                rest = await self.read(read.cursors[-1][1] if read.cursors else None)
                same(whole.values[len(read.values) :], rest.values, f"read on after a cancel at await {at}")
            if unharmed:
                return

    async def _read_cancelled_at(self, at: int) -> tuple[_Read, bool]:
        reader = await self.open()
        read = _Read()
        try:
            async with aclosing(_chunks(reader)) as chunks:
                while True:
                    outcome = await interrupted(_next(chunks), at)
                    at -= outcome.awaits
                    if not outcome.completed or outcome.result is None:
                        return read, outcome.completed
                    _take(read, outcome.result, positions=False)
        finally:
            await reader.close()


async def _next(chunks: Any) -> Chunk | None:
    chunk: Chunk | None = await anext(chunks, None)
    return chunk


def _chunks(reader: Reader) -> Any:
    chunks = reader.read()
    if not hasattr(chunks, "aclose"):
        raise AssertionError(f"{type(reader).__name__}.read() must be an async generator")
    return chunks


def _take(read: _Read, chunk: Chunk, positions: bool = True) -> None:
    before = len(read.values)
    failed = [index for index, record in enumerate(chunk.records) if isinstance(record, Failed)]
    if sorted(chunk.failed) != failed:
        raise AssertionError(f"a chunk says that records {list(chunk.failed)} failed, and {failed} are Failed")
    if chunk.size < 0:
        raise AssertionError(f"a chunk of {chunk.size} bytes")
    # The engine owns what it is given and may change it.
    read.values.extend(copy.deepcopy([value_of(record) for record in chunk.records]))
    if positions and chunk.position is not None:
        for index in range(len(chunk.records)):
            if not chunk.position(index):
                raise AssertionError(f"record {before + index} lies nowhere: its position is an empty text")
    if chunk.cursors is not None:
        read.cursors.extend(
            (before + index + 1, through_json(chunk.cursors(index), "a cursor")) for index in range(len(chunk.records))
        )
    read.cursors.append((len(read.values), through_json(chunk.cursor, "a cursor")))
