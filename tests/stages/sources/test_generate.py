from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import Failed
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.stage import Chunk, Progress, SourceContext
from stages.sources import Generate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock(SystemClock):
    """A clock that only moves while somebody sleeps, or when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


def context(cursor: Any = None, clock: Clock | None = None) -> SourceContext:
    return SourceContext("numbers", "test", clock or Clock(), cursor=cursor)


async def chunks_of(source: Generate, cursor: Any = None) -> list[Chunk]:
    reader = await source.open(context(cursor))
    return [chunk async for chunk in reader.read()]


async def records_of(source: Generate, cursor: Any = None) -> list[Any]:
    return [record for chunk in await chunks_of(source, cursor) for record in chunk.records]


async def test_it_counts_when_told_nothing_else() -> None:
    assert await records_of(Generate(count=3)) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert await records_of(Generate(count=0)) == []
    assert Generate().endless()
    assert not Generate(count=3).endless()


async def test_records_are_made_by_expressions() -> None:
    source = Generate(count=3, record={"id": "n + 1", "kind": "'even' if n % 2 == 0 else 'odd'", "r": "random()"})
    records = await records_of(source)

    assert [(record["id"], record["kind"]) for record in records] == [(1, "even"), (2, "odd"), (3, "even")]
    assert len({record["r"] for record in records}) == 3


@given(st.integers(1, 700), st.integers(0, 700), st.integers())
async def test_every_cursor_goes_on_with_the_same_records(count: int, at: int, seed: int) -> None:
    source = Generate(count=count, record={"n": "n", "a": "random()", "b": "int(random() * 1000)"}, seed=seed)
    whole = await chunks_of(source)
    records = [record for chunk in whole for record in chunk.records]
    cursors = [
        chunk.cursors(index) for chunk in whole if chunk.cursors is not None for index in range(len(chunk.records))
    ]
    at = min(at, count - 1)

    assert await records_of(source, cursors[at]) == records[at + 1 :]
    assert [chunk.cursor for chunk in whole] == [cursors[i] for i in (499, count - 1) if i < count][: len(whole)]


async def test_random_is_even_and_depends_on_the_seed() -> None:
    values = [record["r"] for record in await records_of(Generate(count=5000, record={"r": "random()"}))]
    pairs = [record["r"] for record in await records_of(Generate(count=5000, record={"r": "random() - random()"}))]

    assert all(0 <= value < 1 for value in values)
    assert abs(sum(values) / 5000 - 0.5) < 0.02
    assert abs(sum(value < 0.1 for value in values) / 5000 - 0.1) < 0.02
    assert abs(sum(pairs) / 5000) < 0.03
    assert values != [r["r"] for r in await records_of(Generate(count=5000, record={"r": "random()"}, seed=1))]


async def test_a_rate_is_kept_and_a_halt_is_not_made_up_for() -> None:
    clock = Clock()
    reader = await Generate(rate="1000/s").open(context(clock=clock))
    chunks = reader.read()
    seen = 0
    async for chunk in chunks:
        seen += len(chunk.records)
        assert len(chunk.records) <= 10
        assert seen <= clock.time * 1000 + 10 + 1e-6
        if clock.time >= 2:
            break
    assert seen == pytest.approx(2000, abs=15)

    clock.time += 60
    resumed = seen
    until = clock.time + 1
    async for chunk in chunks:
        resumed += len(chunk.records)
        if clock.time >= until:
            break
    await chunks.aclose()
    assert resumed - seen <= 1000 + 100 + 20


async def test_a_low_rate_gives_each_record_at_its_time() -> None:
    clock = Clock()
    reader = await Generate(rate=2.0, count=4).open(context(clock=clock))
    times = [(clock.time, len(chunk.records)) async for chunk in reader.read()]

    assert times == [(0.0, 1), (0.5, 1), (1.0, 1), (1.5, 1)]


async def test_a_record_that_fails_stands_alone() -> None:
    (chunk,) = await chunks_of(Generate(count=4, record={"x": "6 // (n - 2)"}))

    assert chunk.failed == [2]
    assert isinstance(chunk.records[2], Failed)
    assert [record["x"] for i, record in enumerate(chunk.records) if i != 2] == [-3, -6, 6]
    assert chunk.position is not None
    assert chunk.position(2) == "n=2"


async def test_progress_counts() -> None:
    reader = await Generate(count=600).open(context())
    chunks = reader.read()
    await anext(chunks)
    assert reader.progress() == Progress(500, 600)
    await chunks.aclose()


async def test_what_is_no_expression_is_a_mistake_in_the_config() -> None:
    with pytest.raises(ConfigError, match=r"stage 'numbers' \(source generate\): record: field 'x'"):
        await Generate(record={"x": "m + 1"}).open(context())
    with pytest.raises(ConfigError, match="rate must be more than 0"):
        await Generate(rate=0.0).open(context())


def test_its_identity_is_what_decides_the_records() -> None:
    assert Generate(count=3, rate="10/s", seed=2).identity() == {"record": {"n": "n"}, "seed": 2}
