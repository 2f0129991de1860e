import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from aiostream import stream

from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, StageError
from pipeline.stage import Chunk, Progress, Reader, SourceContext
from stages.sources import Iterable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def opened(records: Any) -> Reader:
    return await Iterable(records).open(SourceContext("feed", "test", SystemClock()))


async def chunks_of(records: Any) -> list[Chunk]:
    reader = await opened(records)
    try:
        return [chunk async for chunk in reader.read()]
    finally:
        await reader.close()


async def records_of(records: Any) -> list[Any]:
    return [record for chunk in await chunks_of(records) for record in chunk.records]


async def counted(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1234])
async def test_every_kind_of_iterable_gives_its_records_in_order(count: int) -> None:
    expected = list(range(count))

    assert await records_of(expected) == expected
    assert await records_of(tuple(expected)) == expected
    assert await records_of(range(count)) == expected
    assert await records_of(number for number in expected) == expected
    assert await records_of(counted(count)) == expected
    assert await records_of(lambda: counted(count)) == expected
    assert await records_of(lambda: iter(expected)) == expected


async def test_an_aiostream_stream_is_run_within_its_context() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await records_of(stream.range(1000)) == list(range(1000))


async def test_chunks_are_full_when_nothing_waits() -> None:
    assert [len(chunk.records) for chunk in await chunks_of(counted(1200))] == [500, 500, 200]
    assert [len(chunk.records) for chunk in await chunks_of(list(range(1200)))] == [500, 500, 200]


async def test_what_came_is_handed_over_while_the_iterator_waits() -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        yield 2
        await go_on.wait()
        yield 3

    reader = await opened(slow())
    chunks = reader.read()
    assert (await anext(chunks)).records == [1, 2]
    go_on.set()
    assert (await anext(chunks)).records == [3]
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_nothing_is_pulled_while_nobody_reads() -> None:
    pulled: list[int] = []

    async def endless() -> AsyncIterator[int]:
        while True:
            pulled.append(len(pulled))
            yield pulled[-1]
            await asyncio.sleep(0)

    reader = await opened(endless())
    chunks = reader.read()
    await anext(chunks)
    before = len(pulled)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(pulled) <= before + 1
    await chunks.aclose()  # type: ignore[attr-defined]  # an async generator, as the engine asks for


async def test_an_iterator_is_iterated_and_closed_in_one_task_and_may_use_timeouts() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def scoped() -> AsyncIterator[int]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                with anyio.move_on_after(0.001):
                    await anyio.sleep(10)
                yield 1
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    reader = await opened(scoped())
    chunks = reader.read()
    for _ in range(3):
        await anext(chunks)
        await asyncio.sleep(0.003)
    await chunks.aclose()  # type: ignore[attr-defined]  # an async generator, as the engine asks for
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]
    assert tasks[0] is not asyncio.current_task()


async def test_a_cancelled_read_closes_the_iterator() -> None:
    closed: list[bool] = []

    async def waiting() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            closed.append(True)

    reader = await opened(waiting())
    chunks = reader.read()
    await anext(chunks)
    with anyio.move_on_after(0.001) as scope:
        await anext(chunks)
    assert scope.cancelled_caught
    assert closed == [True]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_records_before_an_error_are_read(asynchronous: bool) -> None:
    def plain() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    async def later() -> AsyncIterator[int]:
        for number in plain():
            yield number

    reader = await opened(later() if asynchronous else plain())
    seen: list[Any] = []
    with pytest.raises(KeyError, match="three"):
        async for chunk in reader.read():
            seen += chunk.records
    assert seen == [1, 2]


async def test_an_iterator_that_cancels_itself_is_an_error_not_an_end() -> None:
    async def odd() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    with pytest.raises(StageError, match="was cancelled"):
        await chunks_of(odd())


async def test_a_slow_plain_iterator_hands_over_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    time = iter(range(10_000))
    monkeypatch.setattr("stages.sources.iterable.time.monotonic", lambda: next(time) * 0.002)

    assert [len(chunk.records) for chunk in await chunks_of(iter(range(7)))] == [3, 3, 1]


async def test_a_generator_is_closed_when_reading_ends_early() -> None:
    closed: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    reader = await opened(endless())
    chunks = reader.read()
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]  # an async generator, as the engine asks for
    await reader.close()
    assert closed == [True]


async def test_progress_knows_the_length_where_there_is_one() -> None:
    reader = await opened([1, 2, 3])
    assert [chunk.cursor async for chunk in reader.read()] == [3]
    assert reader.progress() == Progress(3, 3)


async def coroutine() -> list[int]:
    return [1]


@pytest.mark.parametrize("records", [5, None, "text", b"bytes", {"a": 1}, lambda: 5, coroutine])
async def test_what_cannot_be_iterated_is_a_mistake(records: Any) -> None:
    with pytest.raises(ConfigError, match=r"stage 'feed' \(source iterable\): expected an iterable of records, not a"):
        await opened(records)


def test_it_never_replays_and_its_records_belong_to_somebody_else() -> None:
    assert not Iterable([]).replays()
    assert Iterable.shares


async def read_all(records: Any, warned: list[str] | None = None, *, dry: bool = False) -> list[Any]:
    context = SourceContext("it", "test", SystemClock(), warn=(warned if warned is not None else []).append)
    reader = await Iterable(records).open(context)
    try:
        return [] if dry else [record async for chunk in reader.read() for record in chunk.records]
    finally:
        await reader.close()


async def test_a_generator_that_is_used_up_is_refused_and_a_function_that_makes_it_is_not() -> None:
    async def later() -> AsyncIterator[int]:
        yield 1

    for made, make in (((n for n in [1]), lambda: (n for n in [1])), (later(), later)):
        assert await read_all(made) == [1]
        with pytest.raises(ConfigError, match=r"the generator is used up; .*give the function that makes it"):
            await read_all(made)
        assert [await read_all(make) for _ in range(2)] == [[1], [1]]


async def test_a_dry_run_leaves_a_generator_to_the_run() -> None:
    generator = (n for n in [1])
    assert await read_all(generator, dry=True) == []
    assert await read_all(generator) == [1]


async def test_an_iterator_that_gives_nothing_may_be_used_up_and_that_is_said() -> None:
    warned: list[str] = []
    mapped = map(abs, [1])
    assert (await read_all(mapped, warned), warned) == ([1], [])
    assert await read_all(mapped, warned) == []
    assert "if an earlier run has used it up" in warned[0]
    assert (await read_all([], warned), len(warned)) == ([], 1)
