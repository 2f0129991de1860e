import asyncio
import threading
import time
from typing import Any

import pytest

from pipeline import Closed, ConfigError, Pipeline
from pipeline.testing import ManualClock
from stages import batchers, processors, sinks, sources
from tests.service.gates import Gate, turns

pytestmark = pytest.mark.anyio


class Peak:
    """A function that remembers how many of its calls there were at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    async def one(self, record: Any) -> Any:
        self._begin()
        await asyncio.sleep(0.002)
        self.now -= 1
        return record

    async def many(self, records: list[Any]) -> list[Any]:
        return [await self.one(records[0]), *records[1:]]

    def blocking(self, record: Any) -> Any:
        self._begin()
        time.sleep(0.005)
        with self._lock:
            self.now -= 1
        return record

    def _begin(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)


async def test_paused_it_takes_records_and_works_on_none_until_it_is_resumed() -> None:
    gate = Gate(opened=True)
    pipeline = Pipeline("paused") | sources.Inlet() | processors.Call(gate.work, batch=True) | sinks.Discard()
    async with pipeline.service() as service:
        assert (await service.submit(0)).record == 0
        await service.pause()
        assert service.status().state == "paused"
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(5)]
        await turns()
        assert service.counts().waiting == 5
        assert gate.batches == [[0]]
        await service.resume()
        assert service.status().state == "running"
        assert [(await task).record for task in tasks] == [*range(5)]


async def test_flush_sends_on_what_waits_for_a_full_batch() -> None:
    pipeline = Pipeline("slow") | sources.Inlet() | batchers.Fixed(size=100, linger=3600.0) | sinks.Discard()
    async with pipeline.service() as service:
        task = asyncio.ensure_future(service.submit(1))
        await turns()
        assert not task.done()
        await service.flush()
        assert (await task).record == 1


@pytest.mark.parametrize("form", ["one", "many", "thread"])
async def test_a_stage_works_on_more_or_fewer_at_a_time_when_it_is_resized(form: str) -> None:
    peak = Peak()
    keys: dict[str, Any] = {"batch": True} if form == "many" else {"executor": "thread"} if form == "thread" else {}
    function = {"one": peak.one, "many": peak.many, "thread": peak.blocking}[form]
    pipeline = (
        Pipeline("resized")
        | sources.Inlet()
        | batchers.Adaptive(target_latency=5.0, max_size=1 if form == "many" else 50, max_in_flight=8)
        | processors.Call(function, name="call", **keys)
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        for concurrency in (1, 4, 2, 1, 3):
            await service.resize("call", concurrency)
            await service.submit_many(range(4))
            peak.most = 0
            answers = await service.submit_many(range(40))
            assert [answer.record for answer in answers] == [*range(40)]
            assert peak.most == concurrency
            (status,) = [stage for stage in service.status().stages if stage.name == "call"]
            assert status.name == "call"


async def test_a_sink_is_resized_too() -> None:
    pipeline = Pipeline("sinks") | sources.Inlet() | sinks.Discard()
    async with pipeline.service() as service:
        await service.resize("discard", 3)
        assert [answer.record for answer in await service.submit_many(range(100))] == [*range(100)]


async def test_what_a_config_would_be_refused_for_is_refused_on_the_way_too(tmp_path: Any) -> None:
    pipeline = (
        Pipeline("refused", checkpoint={"path": str(tmp_path / "state.db")})
        | sources.Inlet()
        | processors.Filter(lambda n: True)
        | processors.Map(set={"m": "n"})
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )
    async with pipeline.service() as service:
        for stage, concurrency, text in [
            ("jsonl", 2, "takes one batch at a time"),
            ("filtr", 2, "no stage 'filtr'; did you mean 'filter'"),
            ("inlet", 2, "only processors and sinks have a concurrency"),
            ("filter", 2, "shares its actor"),
            ("filter", 0, "concurrency"),
        ]:
            with pytest.raises(ConfigError, match=text):
                await service.resize(stage, concurrency)
        with pytest.raises(ConfigError, match="no batcher with a target"):
            await service.retarget(0.1)
        with pytest.raises(ConfigError, match="only batchers have a target"):
            await service.retarget(0.1, "filter")
    with pytest.raises(Closed):
        await service.resize("filter", 1)


async def test_batches_follow_another_target_at_once() -> None:
    sizes: list[int] = []

    async def work(records: list[int]) -> list[int]:
        sizes.append(len(records))
        await asyncio.sleep(0.001 + 0.0005 * len(records))
        return records

    pipeline = (
        Pipeline("retargeted")
        | sources.Inlet()
        | batchers.Adaptive(target_latency=0.1)
        | processors.Call(work, batch=True)
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        events = service.events()
        await service.submit_many(range(1000))
        (before,) = [stage.limit for stage in service.status().stages if stage.role == "batcher"]
        await service.retarget("20ms")
        (after,) = [stage.limit for stage in service.status().stages if stage.role == "batcher"]
        assert after < before / 2
        sizes.clear()
        await service.submit_many(range(500))
        assert max(sizes[2:]) <= before / 2
        with pytest.raises(ConfigError, match="more than 0"):
            await service.retarget(0)
    told = [event async for event in events]
    assert [event.fields["target"] for event in told if event.name == "retarget"] == [0.02]
    assert "target" in {event.fields["reason"] for event in told if event.name == "resize"}


async def test_status_and_counts_say_where_it_is() -> None:
    gate = Gate()
    pipeline = Pipeline("watched") | sources.Inlet() | processors.Call(gate.work, batch=True) | sinks.Discard()
    async with pipeline.service() as service:
        assert (service.name, service.accepts) == ("watched", True)
        task = asyncio.ensure_future(service.submit(1))
        await turns()
        status, counts = service.status(), service.counts()
        assert (status.state, status.account.read, status.account.unsettled) == ("running", 1, 1)
        assert (counts.submitted, counts.open, counts.waiting, counts.answered) == (1, 1, 0, 0)
        gate.open()
        await task
        assert service.history().samples is not None
    assert service.status().state == "finished"


async def test_a_stage_that_is_given_more_gets_more_while_all_it_had_is_stuck() -> None:
    clock, gate = ManualClock(), Gate()
    pipeline = (
        Pipeline("stuck")
        | sources.Inlet()
        | batchers.Fixed(size=1, linger=0.001)
        | processors.Call(gate.work, batch=True, name="call", concurrency=2)
        | sinks.Discard()
    )
    async with asyncio.timeout(20), pipeline.service(clock=clock) as service:
        first = asyncio.ensure_future(service.submit(0))
        await turns()
        await clock.advance(1.0)
        gate.open()
        await first
        gate.shut()
        others = [asyncio.ensure_future(service.submit(n)) for n in (1, 2, 3, 4)]
        await turns()
        assert gate.batches == [[0], [1], [2]]
        await service.resize("call", 4)
        await turns()
        stuck = list(gate.batches)
        gate.open()
        await asyncio.gather(*others)
        assert stuck == [[0], [1], [2], [3], [4]]
