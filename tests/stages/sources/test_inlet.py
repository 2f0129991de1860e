import asyncio

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import SystemClock
from pipeline.stage import Progress, SourceContext
from stages.sources import Inlet
from stages.sources.inlet import InletReader

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def opened(capacity: int = 10) -> InletReader:
    return await Inlet(capacity=capacity).open(SourceContext("requests", "test", SystemClock()))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_put_is_read_in_order_until_the_input_is_closed() -> None:
    inlet = await opened(capacity=2000)
    assert [inlet.put_nowait(number) for number in range(1200)] == list(range(1200))
    assert await inlet.put("last") == 1200
    inlet.close_input()

    chunks = [chunk async for chunk in inlet.read()]
    assert [record for chunk in chunks for record in chunk.records] == [*range(1200), "last"]
    assert [len(chunk.records) for chunk in chunks] == [500, 500, 201]
    assert inlet.progress() == Progress(1201, 1201)


async def test_a_record_is_read_as_soon_as_it_is_put() -> None:
    inlet = await opened()
    chunks = inlet.read()
    reading = asyncio.ensure_future(anext(chunks))
    await settle()
    assert not reading.done()
    inlet.put_nowait("now")

    assert (await reading).records == ["now"]
    await chunks.aclose()


async def test_a_full_inlet_refuses_or_makes_wait_in_turn() -> None:
    inlet = await opened(capacity=1)
    inlet.put_nowait(0)
    with pytest.raises(anyio.WouldBlock):
        inlet.put_nowait("no room")
    waiting = [asyncio.ensure_future(inlet.put(number)) for number in (1, 2, 3)]
    await settle()
    assert not any(task.done() for task in waiting)

    chunks = inlet.read()
    read = (await anext(chunks)).records
    with pytest.raises(anyio.WouldBlock):
        inlet.put_nowait("before those who wait")
    while len(read) < 4:
        read += (await anext(chunks)).records
    assert read == [0, 1, 2, 3]
    assert [task.result() for task in waiting] == [1, 2, 3]
    await chunks.aclose()


async def test_closing_ends_those_who_wait() -> None:
    inlet = await opened(capacity=1)
    inlet.put_nowait(0)
    waiting = asyncio.ensure_future(inlet.put(1))
    await settle()
    await inlet.close()

    with pytest.raises(anyio.ClosedResourceError):
        await waiting
    with pytest.raises(anyio.ClosedResourceError):
        inlet.put_nowait(2)
    with pytest.raises(anyio.ClosedResourceError):
        await inlet.put(2)
    assert [chunk.records async for chunk in inlet.read()] == [[0]]


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from(["put", "put_nowait", "cancel", "read", "turn"]), st.integers(0, 5)), max_size=40
    ),
)
async def test_whoever_is_cancelled_loses_no_ones_place(capacity: int, steps: list[tuple[str, int]]) -> None:
    inlet = await opened(capacity)
    chunks = inlet.read()
    read: list[int] = []
    puts: dict[int, asyncio.Task[int]] = {}
    at_once: list[int] = []
    for number, (step, which) in enumerate(steps):
        if step == "put":
            puts[number] = asyncio.ensure_future(inlet.put(number))
            await asyncio.sleep(0)
        elif step == "put_nowait":
            try:
                inlet.put_nowait(number)
                at_once.append(number)
            except anyio.WouldBlock:
                pass
        elif step == "cancel" and puts:
            list(puts.values())[which % len(puts)].cancel()
        elif step == "read" and inlet.progress() != Progress(len(read), len(read)):
            read += (await anext(chunks)).records
        else:
            await asyncio.sleep(0)
    while not all(task.done() for task in puts.values()) or inlet.progress() != Progress(len(read), len(read)):
        await settle()
        if inlet.progress() != Progress(len(read), len(read)):
            read += (await anext(chunks)).records
    await chunks.aclose()

    put = [number for number, task in puts.items() if not task.cancelled()]
    assert sorted(read) == sorted(put + at_once)
    assert [number for number in read if number in puts] == put


def test_it_never_replays_and_never_ends_by_itself() -> None:
    assert not Inlet().replays()
    assert Inlet().endless()
    assert Inlet.shares
