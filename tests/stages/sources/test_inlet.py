import asyncio

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stage import Place, Progress, SourceContext
from pipeline.testing import ManualClock
from stages.sources import Inlet
from stages.sources.inlet import InletReader

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def opened(capacity: int = 10) -> InletReader:
    return await Inlet(capacity=capacity).open(SourceContext("requests", "test", ManualClock()))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_put_is_read_in_order_until_the_input_is_closed() -> None:
    inlet = await opened(capacity=2000)
    for number in range(1200):
        inlet.put_nowait(Place(number))
    await inlet.put(Place("last"))
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
    inlet.put_nowait(Place("now"))

    assert (await reading).records == ["now"]
    await chunks.aclose()


async def test_a_chunk_holds_what_the_engine_can_use_and_the_highest_priorities_of_all_that_wait() -> None:
    inlet = await opened()
    inlet.wanted = lambda: 2
    for record, priority in [("low", -1), ("first", 5), ("middle", 0), ("second", 5)]:
        inlet.put_nowait(Place(record, priority))
    chunks = inlet.read()

    assert (await anext(chunks)).records == ["first", "second"]
    inlet.put_nowait(Place("late but high", 9))
    assert (await anext(chunks)).records == ["late but high", "middle"]
    assert (await anext(chunks)).records == ["low"]
    await chunks.aclose()


async def test_whoever_feeds_it_is_told_the_numbers_of_what_was_read() -> None:
    inlet = await opened()
    told: list[tuple[int, list[object]]] = []
    inlet.numbered = lambda first, places: told.append((first, list(places)))
    places = [Place(number) for number in range(3)]
    for place in places:
        inlet.put_nowait(place)
    inlet.close_input()
    async for chunk in inlet.read():
        assert chunk.numbered is not None
        chunk.numbered(700)

    assert told == [(700, places)]


async def test_what_is_withdrawn_is_not_read_and_makes_room() -> None:
    inlet = await opened(capacity=2)
    first, second = Place(1), Place(2)
    inlet.put_nowait(first)
    inlet.put_nowait(second)
    waiting = asyncio.ensure_future(inlet.put(Place(3)))
    await settle()
    assert inlet.withdraw(first)
    assert not inlet.withdraw(first)
    await waiting
    inlet.close_input()

    assert [chunk.records async for chunk in inlet.read()] == [[2, 3]]
    assert not inlet.withdraw(second)


async def test_held_it_takes_records_and_gives_none_until_it_goes_on_or_is_closed() -> None:
    inlet = await opened()
    inlet.hold()
    inlet.put_nowait(Place("held"))
    chunks = inlet.read()
    reading = asyncio.ensure_future(anext(chunks))
    await settle()
    assert not reading.done()
    inlet.go_on()
    assert (await reading).records == ["held"]

    inlet.hold()
    inlet.put_nowait(Place("last"))
    inlet.close_input()
    assert [chunk.records async for chunk in chunks] == [["last"]]


async def test_a_full_inlet_refuses_or_makes_wait_in_turn() -> None:
    inlet = await opened(capacity=1)
    inlet.put_nowait(Place(0))
    with pytest.raises(anyio.WouldBlock):
        inlet.put_nowait(Place("no room"))
    waiting = [asyncio.ensure_future(inlet.put(Place(number))) for number in (1, 2, 3)]
    await settle()
    assert not any(task.done() for task in waiting)

    chunks = inlet.read()
    read = (await anext(chunks)).records
    with pytest.raises(anyio.WouldBlock):
        inlet.put_nowait(Place("before those who wait"))
    while len(read) < 4:
        read += (await anext(chunks)).records
    assert read == [0, 1, 2, 3]
    await asyncio.gather(*waiting)
    await chunks.aclose()


async def test_closing_ends_those_who_wait() -> None:
    inlet = await opened(capacity=1)
    inlet.put_nowait(Place(0))
    waiting = asyncio.ensure_future(inlet.put(Place(1)))
    await settle()
    await inlet.close()

    with pytest.raises(anyio.ClosedResourceError):
        await waiting
    with pytest.raises(anyio.ClosedResourceError):
        inlet.put_nowait(Place(2))
    with pytest.raises(anyio.ClosedResourceError):
        await inlet.put(Place(2))
    assert [chunk.records async for chunk in inlet.read()] == [[0]]


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from(["put", "put_nowait", "cancel", "withdraw", "read", "turn"]), st.integers(0, 5)),
        max_size=40,
    ),
)
async def test_whoever_is_cancelled_loses_no_ones_place(capacity: int, steps: list[tuple[str, int]]) -> None:
    inlet = await opened(capacity)
    chunks = inlet.read()
    read: list[int] = []
    puts: dict[int, asyncio.Task[None]] = {}
    places: dict[int, Place] = {}
    at_once: list[int] = []
    withdrawn: set[int] = set()

    async def read_on() -> None:
        if inlet.waiting:
            read.extend((await anext(chunks)).records)

    for number, (step, which) in enumerate(steps):
        place = Place(number)
        if step == "put":
            places[number] = place
            puts[number] = asyncio.ensure_future(inlet.put(place))
            await asyncio.sleep(0)
        elif step == "put_nowait":
            try:
                inlet.put_nowait(place)
                places[number] = place
                at_once.append(number)
            except anyio.WouldBlock:
                pass
        elif step == "cancel" and puts:
            list(puts.values())[which % len(puts)].cancel()
        elif step == "withdraw" and places:
            chosen = list(places)[which % len(places)]
            if inlet.withdraw(places[chosen]):
                withdrawn.add(chosen)
        elif step == "read":
            await read_on()
        else:
            await asyncio.sleep(0)
    while not all(task.done() for task in puts.values()) or inlet.waiting:
        await settle()
        await read_on()
    await chunks.aclose()

    put = [number for number, task in puts.items() if not task.cancelled()]
    assert sorted(read) == sorted(set(put + at_once) - withdrawn)
    assert [number for number in read if number in puts] == [number for number in put if number not in withdrawn]


def test_it_never_replays_and_never_ends_by_itself() -> None:
    assert not Inlet().replays()
    assert Inlet().endless()
    assert Inlet.shares
    assert Inlet.fed
