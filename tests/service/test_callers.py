import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Closed, ConfigError, DeadlinePassed, Overloaded, Pipeline
from pipeline.settle.view import open_view
from pipeline.testing import ManualClock
from stages import batchers, processors, sinks, sources
from tests.service.gates import Gate, turns

pytestmark = pytest.mark.anyio


def gated(gate: Gate, size: int = 2, capacity: int = 100, **keys: Any) -> Pipeline:
    return (
        Pipeline("gated", **keys)
        | sources.Inlet(capacity=capacity)
        | batchers.Fixed(size=size, linger=0.001)
        | processors.Call(gate.work, batch=True)
        | sinks.Discard()
    )


async def test_a_caller_that_leaves_does_not_disturb_its_batch() -> None:
    gate = Gate()
    async with gated(gate, size=3).service() as service:
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(3)]
        await turns()
        tasks[1].cancel()
        await turns()
        gate.open()
        assert (await tasks[0]).record == 0
        assert (await tasks[2]).record == 2
        assert service.counts().open == 0
    assert gate.batches == [[0, 1, 2]]
    assert (await service.wait()).account.written == 3


async def test_a_caller_that_leaves_the_line_takes_its_record_along() -> None:
    gate = Gate(opened=True)
    async with gated(gate, capacity=2).service() as service:
        await service.pause()
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(2)]
        await turns()
        tasks[0].cancel()
        await turns()
        tasks.append(asyncio.ensure_future(service.submit("in its place")))
        await turns()
        await service.resume()
        assert [(await task).record for task in tasks[1:]] == [1, "in its place"]
    assert [record for batch in gate.batches for record in batch] == [1, "in its place"]


async def test_a_deadline_that_has_passed_is_refused_before_anything() -> None:
    gate = Gate(opened=True)
    async with gated(gate).service() as service:
        for deadline in (0, -1.0, "0s"):
            with pytest.raises(DeadlinePassed) as caught:
                await service.submit(1, deadline=deadline)
            assert not caught.value.began
        assert (await service.submit(2, deadline=30)).record == 2
        with pytest.raises(ConfigError, match="deadline='soon'"):
            await service.submit(1, deadline="soon")
    assert gate.batches == [[2]]


async def test_a_deadline_that_passes_in_line_takes_the_record_out() -> None:
    clock, gate = ManualClock(), Gate(opened=True)
    async with gated(gate).service(clock=clock) as service:
        await service.pause()
        late = asyncio.ensure_future(service.submit("late", deadline="250ms"))
        patient = asyncio.ensure_future(service.submit("patient", deadline=10))
        await turns()
        await clock.advance(0.3)
        with pytest.raises(DeadlinePassed, match=r"deadline of 0\.25 s") as caught:
            await late
        assert not caught.value.began
        await service.resume()
        await clock.advance(0.1)
        assert (await patient).record == "patient"
        assert service.counts().late == 1
    assert gate.batches == [["patient"]]


async def test_a_deadline_that_passes_before_work_drops_the_record() -> None:
    clock, gate = ManualClock(), Gate()
    async with gated(gate, size=1).service(clock=clock) as service:
        first = asyncio.ensure_future(service.submit("first"))
        await turns()
        second = asyncio.ensure_future(service.submit("second", deadline=1.0))
        third = asyncio.ensure_future(service.submit("third"))
        await turns()
        await clock.advance(2.0)
        with pytest.raises(DeadlinePassed) as caught:
            await second
        assert caught.value.began
        gate.open()
        await clock.advance(1.0)
        assert [(await first).record, (await third).record] == ["first", "third"]
    assert gate.batches == [["first"], ["third"]]
    account = (await service.wait()).account
    assert (account.written, account.skipped, account.unsettled) == (2, 1, 0)


async def test_a_deadline_that_passes_during_work_disturbs_nobody() -> None:
    clock, gate = ManualClock(), Gate()
    async with gated(gate).service(clock=clock) as service:
        late = asyncio.ensure_future(service.submit("late", deadline=1.0))
        other = asyncio.ensure_future(service.submit("other"))
        await turns()
        await clock.advance(2.0)
        with pytest.raises(DeadlinePassed):
            await late
        gate.open()
        await clock.advance(1.0)
        assert (await other).record == "other"
    assert gate.batches == [["late", "other"]]


async def test_the_highest_priority_is_taken_first() -> None:
    gate = Gate(opened=True)
    async with gated(gate, size=1).service() as service:
        await service.pause()
        tasks = [asyncio.ensure_future(service.submit(priority, priority=priority)) for priority in (0, 2, 1, 2, -1)]
        await turns()
        await service.resume()
        await asyncio.gather(*tasks)
    assert [record for batch in gate.batches for record in batch] == [2, 2, 1, 0, -1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 5))
async def test_at_any_time_what_is_taken_is_the_highest_that_waits(priorities: list[int], size: int) -> None:
    gate = Gate(opened=True)
    async with gated(gate, size=size).service() as service:
        await service.pause()
        pairs = list(enumerate(priorities))
        tasks = [asyncio.ensure_future(service.submit(pair, priority=pair[1])) for pair in pairs]
        await turns(3)
        await service.resume()
        await asyncio.gather(*tasks)
    taken = [record for batch in gate.batches for record in batch]
    assert taken == sorted(pairs, key=lambda pair: -pair[1])


async def test_urgent_records_overtake_all_but_the_batches_on_their_way() -> None:
    gate = Gate()
    async with gated(gate, size=20, capacity=2000).service() as service:
        slow = [asyncio.ensure_future(service.submit("slow")) for _ in range(1000)]
        await turns()
        urgent = asyncio.ensure_future(service.submit("urgent", priority=1))
        await turns()
        gate.open()
        await urgent
        behind = next(number for number, batch in enumerate(gate.batches) if "urgent" in batch)
        assert behind < 10
        await asyncio.gather(*slow)


async def test_many_more_than_the_capacity_go_in_bit_by_bit_and_let_others_in() -> None:
    gate = Gate(opened=True)
    async with gated(gate, size=10, capacity=20).service() as service:
        many = asyncio.ensure_future(service.submit_many(range(500)))
        others: list[Any] = []
        while not many.done():
            others.append((await service.submit("other")).record)
        assert [answer.record for answer in await many] == [*range(500)]
        assert len(others) > 10


async def test_many_are_refused_as_a_whole_when_nothing_fits() -> None:
    gate = Gate()
    async with gated(gate, capacity=2).service() as service:
        await service.pause()
        waiting = asyncio.ensure_future(service.submit_many([1, 2, 3, 4]))
        other = asyncio.ensure_future(service.submit(5))
        await turns()
        with pytest.raises(Overloaded):
            await service.submit_many([6, 7])
        gate.open()
        await service.resume()
        assert [answer.record for answer in await waiting] == [1, 2, 3, 4]
        assert (await other).record == 5
        assert service.counts().refused == 2


async def test_many_have_one_deadline_for_all() -> None:
    clock, gate = ManualClock(), Gate()
    async with gated(gate, capacity=4).service(clock=clock) as service:
        await service.pause()
        others = [asyncio.ensure_future(service.submit("other")) for _ in range(3)]
        await turns()
        many = asyncio.ensure_future(service.submit_many([1, 2, 3, 4], deadline=1.0))
        await turns()
        await clock.advance(2.0)
        assert all(isinstance(answer.error, DeadlinePassed) for answer in await many)
        gate.open()
        await service.resume()
        await clock.advance(1.0)
        await asyncio.gather(*others)
    assert {record for batch in gate.batches for record in batch} == {"other"}


async def test_whoever_leaves_many_takes_all_along() -> None:
    gate = Gate(opened=True)
    async with gated(gate).service() as service:
        await service.pause()
        many = asyncio.ensure_future(service.submit_many(range(80)))
        await turns()
        many.cancel()
        await turns()
        assert (service.counts().waiting, service.counts().open) == (0, 0)
        await service.resume()
        assert (await service.submit("next")).record == "next"
    assert gate.batches == [["next"]]


async def test_many_of_none_are_answered_at_once() -> None:
    async with gated(Gate()).service() as service:
        assert await service.submit_many([]) == []


async def test_a_durable_answer_comes_with_the_checkpoint_that_covers_it(tmp_path: Path) -> None:
    gate = Gate(opened=True)
    state = tmp_path / "state.db"
    async with gated(gate, checkpoint={"path": str(state), "interval": 3600.0}).service() as service:
        assert service.status().checkpoints == 0
        assert (await service.submit(1)).record == 1
        assert service.status().checkpoints == 0
        answers = await asyncio.gather(*(service.submit(n, durable=True) for n in range(20)))
        assert [answer.record for answer in answers] == [*range(20)]
        assert 1 <= service.status().checkpoints <= 10
        async with open_view(state) as view:
            (cut, *_) = await view.cuts()
            assert cut.counters["account"]["written"] == 21


async def test_nothing_is_durable_without_a_state_file() -> None:
    async with gated(Gate()).service() as service:
        with pytest.raises(ConfigError, match="nothing is durable"):
            await service.submit(1, durable=True)


async def test_a_closed_service_refuses() -> None:
    async with gated(Gate()).service() as service:
        await service.drain()
        with pytest.raises(Closed, match="has ended"):
            await service.submit(1)
        with pytest.raises(Closed, match="has ended"):
            await service.submit_many([1])
        assert not service.accepts


async def test_a_pause_while_a_service_drains_leaves_nobody_without_an_answer() -> None:
    clock, gate = ManualClock(), Gate()
    service = gated(gate, size=5).service(clock=clock)
    async with asyncio.timeout(20), service:
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(50)]
        await turns()
        draining = asyncio.ensure_future(service.drain())
        await turns()
        await service.pause()
        gate.open()
        for _ in range(5):
            await clock.advance(1.0)
            await turns()
        assert [task.done() for task in tasks] == [True] * 50
        assert [(await task).record for task in tasks] == list(range(50))
        await draining
