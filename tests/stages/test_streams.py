"""Tests of aiostream's operators as processors."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import aiostream
import pytest
from aiostream import operator, pipable_operator, stream

from pipeline.errors import ConfigError
from stages.streams import Operator, adapt
from tests.stages.processors.opened import context

# Its own types ask of every function that it takes further streams as well.
pipe: Any = aiostream.pipe

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def double(record: int) -> int:
    return record * 2


async def later(record: int) -> int:
    return record * 2


class Fed:
    """Records for a stream that notes when each is asked for."""

    def __init__(self, records: list[Any], log: list[Any]) -> None:
        self._records = iter(records)
        self._log = log

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            record = next(self._records)
        except StopIteration:
            raise StopAsyncIteration from None
        self._log.append(("in", record))
        return record


async def run(piped: Any, records: list[Any]) -> list[Any]:
    spec = adapt(piped)
    assert spec is not None
    work = await spec.open(context())
    log: list[Any] = []
    results = work.function(Fed(records, log))
    while (result := await anext(results, ...)) is not ...:
        log.append(("out", result))
    return log


def in_and_out(*pairs: tuple[Any, Any]) -> list[Any]:
    return [(way, value) for pair in pairs for way, value in zip(("in", "out"), pair, strict=True)]


@pytest.mark.parametrize(
    "piped",
    [
        pipe.map(double),
        pipe.map(later),
        pipe.map(later, ordered=False),
        pipe.map(later, task_limit=1),
        pipe.amap(later),
        pipe.amap(later, ordered=False),
        pipe.smap(double),
    ],
)
async def test_one_to_one_operators_give_each_result_before_they_ask_for_the_next_record(piped: Any) -> None:
    spec = adapt(piped)

    assert isinstance(spec, Operator)
    assert spec.resumable()
    assert not (await spec.open(context())).groups
    assert await run(piped, [1, 2, 3]) == in_and_out((1, 2), (2, 4), (3, 6))


async def test_starmap_takes_records_apart() -> None:
    async def add(first: int, second: int) -> int:
        return first + second

    assert await run(pipe.starmap(add), [(1, 2), (3, 4)]) == in_and_out(((1, 2), 3), ((3, 4), 7))
    assert await run(pipe.starmap(max), [(1, 2), (3, 4)]) == in_and_out(((1, 2), 2), ((3, 4), 4))


async def test_filters_ask_on_until_one_passes() -> None:
    async def odd(record: int) -> bool:
        return record % 2 == 1

    for piped in (pipe.filter(odd), pipe.filter({1, 3}.__contains__)):
        assert await run(piped, [1, 2, 3]) == [("in", 1), ("out", 1), ("in", 2), ("in", 3), ("out", 3)]


async def test_actions_hand_records_on_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    async def act(record: int) -> None:
        seen.append(record)

    for piped in (pipe.action(act), pipe.action(seen.append), pipe.print("<{}>")):
        assert await run(piped, [1, 2]) == in_and_out((1, 1), (2, 2))
    assert seen == [1, 2, 1, 2]
    assert capsys.readouterr().out == "<1>\n<2>\n"


async def test_chunks_settle_their_group_as_one() -> None:
    spec = adapt(pipe.chunks(2))
    assert spec is not None

    assert (await spec.open(context())).groups
    assert spec.resumable()
    assert await run(pipe.chunks(2), [1, 2, 3]) == [("in", 1), ("in", 2), ("out", [1, 2]), ("in", 3), ("out", [3])]


@pytest.mark.parametrize(
    ("piped", "expected"),
    [
        (pipe.take(2), in_and_out((1, 1), (2, 2))),
        (pipe.skip(2), [("in", 1), ("in", 2), ("in", 3), ("out", 3)]),
        (pipe.enumerate(5), in_and_out((1, (5, 1)), (2, (6, 2)), (3, (7, 3)))),
        (pipe.accumulate(), in_and_out((1, 1), (2, 3), (3, 6))),
    ],
)
async def test_operators_with_memory_run_without_a_promise_to_resume(piped: Any, expected: list[Any]) -> None:
    spec = adapt(piped)
    assert spec is not None

    assert not spec.resumable()
    assert await run(piped, [1, 2, 3]) == expected


async def test_an_operator_can_be_run_twice() -> None:
    piped = pipe.take(1)

    assert await run(piped, [1, 2]) == await run(piped, [1, 2])


async def through(source: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for record in source:
        yield record


MINE = pipable_operator(through).pipe()


@pytest.mark.parametrize(
    ("piped", "text"),
    [
        (pipe.flatmap(stream.just), r"pipe\.flatmap .* use processors\.Explode"),
        (pipe.merge(stream.just(1)), r"use Pipeline\.merge"),
        (pipe.reduce(max), r"use processors\.Call\(\.\.\., batch=True, aggregate=True\)"),
        (pipe.skiplast(1), r"pipe\.skiplast can't settle"),
        (pipe.map(double, stream.just(1)), r"pipe\.map over several streams"),
        (pipe.map(later, task_limit=4), r"use processors\.Call\(\.\.\., concurrency=4\)"),
        (pipe.accumulate(max, 5), "leave out initializer"),
        (pipe.map, r"write pipe\.map\(\.\.\.\)"),
        (MINE, r"not one of aiostream's own.*processors\.Call"),
    ],
)
def test_any_other_operator_is_refused_and_the_way_out_is_named(piped: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        adapt(piped)


def test_every_pipe_operator_is_allowed_or_has_a_way_out() -> None:
    from stages import streams

    known = vars(streams)
    names = {name for name in vars(aiostream.pipe) if not name.startswith("_")} - {"annotations", "stream"}

    assert names <= known["_ALONE"] | known["_GROUPING"] | known["_REMEMBERING"] | set(known["_INSTEAD"])


@operator
async def source() -> AsyncIterator[int]:
    yield 1


OTHERS: list[Any] = [double, later, stream.just(1), source(), 5, "pipe", Fed]


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_pipe_operator_is_left_to_others(other: Any) -> None:
    assert adapt(other) is None
