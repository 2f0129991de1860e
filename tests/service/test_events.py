import asyncio
import gc

import pytest

from pipeline import Pipeline
from pipeline.service import EventStream, ServiceEvent
from stages import sinks, sources
from tests.service.gates import turns

pytestmark = pytest.mark.anyio


def plain() -> Pipeline:
    return Pipeline("plain") | sources.Inlet() | sinks.Discard()


def event(number: int) -> ServiceEvent:
    return ServiceEvent(number, "batch", {}, 0.0)


async def test_events_come_in_order_and_end_with_the_service() -> None:
    async with plain().service() as service:
        stream = service.events()
        await service.submit(1)
    events = [event async for event in stream]
    names = [event.name for event in events]
    assert names.index("draining") < names.index("finished") == len(names) - 1
    assert [event.number for event in events] == sorted(event.number for event in events)
    assert [event async for event in service.events()] == []


async def test_a_reader_is_woken_by_what_comes() -> None:
    stream = EventStream(10)
    reading = asyncio.ensure_future(anext(stream))
    await turns()
    assert not reading.done()
    stream.put(event(1))
    assert (await reading).number == 1


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    stream = EventStream(3)
    for number in range(1, 8):
        stream.put(event(number))
    stream.close()
    events = [event async for event in stream]
    assert [(event.number, event.name) for event in events] == [(4, "lost"), (5, "batch"), (6, "batch"), (7, "batch")]
    assert events[0].fields == {"count": 4}


async def test_a_reader_that_is_gone_is_forgotten() -> None:
    async with plain().service() as service:
        stream = service.events()
        async with service.events() as left:
            pass
        assert left.ended
        del stream
        gc.collect()
        assert len(service._streams) <= 1  # pyright: ignore[reportPrivateUsage]


async def test_a_reader_that_is_cancelled_can_go_on() -> None:
    stream = EventStream(3)
    reading = asyncio.ensure_future(anext(stream))
    await turns()
    reading.cancel()
    await turns()
    stream.put(event(1))
    assert (await anext(stream)).number == 1
