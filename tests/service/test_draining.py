import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Closed, DeadlineError, Pipeline, PipelineError, RecordFailed, Refused, Unavailable, Unfinished
from pipeline.stage import Retry
from pipeline.testing import ManualClock
from stages import batchers, processors, sinks, sources
from tests.service.gates import Gate, turns

pytestmark = pytest.mark.anyio


def gated(work: Any, capacity: int = 1000, **keys: Any) -> Pipeline:
    return (
        Pipeline("gated", **keys)
        | sources.Inlet(capacity=capacity)
        | batchers.Fixed(size=10, linger=0.001)
        | processors.Call(work, batch=True, name="work", retry=Retry(attempts=3, backoff=4.0))
        | sinks.Discard()
    )


async def test_all_that_was_submitted_before_a_drain_is_answered() -> None:
    gate = Gate()
    async with gated(gate.work).service() as service:
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(200)]
        many = asyncio.ensure_future(service.submit_many(range(200, 300)))
        await turns()
        draining = asyncio.ensure_future(service.drain())
        await turns()
        with pytest.raises(Closed, match="drains and takes no more"):
            await service.submit("late")
        gate.open()
        report = await draining
        assert [(await task).record for task in tasks] == [*range(200)]
        assert [answer.record for answer in await many] == [*range(200, 300)]
    assert (report.outcome, report.exit_code, report.account.written) == ("drained", 0, 300)


async def test_leaving_drains_a_paused_service_too() -> None:
    async with gated(Gate(opened=True).work).service() as service:
        await service.pause()
        tasks = [asyncio.ensure_future(service.submit(n)) for n in range(20)]
        await turns()
    assert [(await task).record for task in tasks] == [*range(20)]


async def test_many_that_are_not_all_in_yet_are_answered_or_refused_one_by_one() -> None:
    gate = Gate()
    async with gated(gate.work, capacity=20).service() as service:
        many = asyncio.ensure_future(service.submit_many(range(500)))
        await turns()
        draining = asyncio.ensure_future(service.drain())
        await turns()
        gate.open()
        report = await draining
        answers = await many
        refused = [answer for answer in answers if isinstance(answer.error, Closed)]
        assert len(refused) + report.account.written == 500
        assert [answer.record for answer in answers if answer.error is None] == [*range(report.account.written)]
        counts = service.counts()
        assert (counts.open, counts.refused, counts.answered) == (0, len(refused), report.account.written)


async def test_past_the_deadline_everybody_is_told_what_became_of_them() -> None:
    clock, gate = ManualClock(), Gate()
    with pytest.raises(DeadlineError, match="deadline passed"):
        async with gated(gate.work).service(clock=clock) as service:
            tasks = [asyncio.ensure_future(service.submit(n)) for n in range(100)]
            await turns()
            draining = asyncio.ensure_future(service.drain("5s"))
            await clock.advance(6.0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {Unfinished, Closed}
            assert all("deadline passed" in str(result) for result in results)
            assert service.counts().open == 0
            await draining


async def test_a_wait_for_another_attempt_goes_on_for_half_of_the_deadline() -> None:
    clock, failures = ManualClock(), [Unavailable("away")]

    async def remote(records: list[int]) -> list[int]:
        if failures:
            raise failures.pop()
        return records

    async with gated(remote).service(clock=clock) as service:
        task = asyncio.ensure_future(service.submit(1))
        await clock.advance(0.1)
        draining = asyncio.ensure_future(service.drain(10.0))
        await clock.advance(4.5)
        assert (await task).record == 1
        assert (await draining).outcome == "drained"


async def test_then_it_is_given_up_and_the_caller_is_told() -> None:
    clock = ManualClock()

    async def remote(records: list[int]) -> list[int]:
        raise Unavailable("away", retry_after=60.0)

    async with gated(remote).service(clock=clock) as service:
        task = asyncio.ensure_future(service.submit(1))
        await clock.advance(0.1)
        draining = asyncio.ensure_future(service.drain(10.0))
        await clock.advance(4.8)
        assert not task.done()
        await clock.advance(0.2)
        with pytest.raises((Unfinished, RecordFailed)):
            await task
        assert (await draining).account.unsettled == 1


async def test_other_sources_end_where_they_are() -> None:
    async def stream() -> AsyncIterator[int]:
        n = 0
        while True:
            yield n
            n += 1
            await asyncio.sleep(0)

    pipeline = Pipeline.merge(Pipeline("both") | sources.Inlet(), Pipeline("stream") | stream()) | sinks.Discard()
    async with pipeline.service() as service:
        assert (await service.submit("x")).record == "x"
        report = await service.drain()
    assert report.account.unsettled == 0


@pytest.mark.parametrize("attempt", range(3))
async def test_a_service_that_is_left_at_once_is_done_at_once(attempt: int) -> None:
    with anyio.fail_after(2):
        async with gated(Gate().work).service() as service:
            for _ in range(attempt):
                await asyncio.sleep(0)
        assert (await service.wait()).account.read == 0


async def test_cancelled_it_ends_at_once_and_tells_everybody() -> None:
    service = gated(Gate().work).service()
    tasks: list[asyncio.Task[Any]] = []
    with anyio.move_on_after(0.05):
        async with service:
            tasks += [asyncio.ensure_future(service.submit(n)) for n in range(30)]
            await anyio.sleep(10)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, Unfinished | Refused) for result in results)
    assert service.counts().open == 0
    with pytest.raises(PipelineError, match="was cancelled"):
        await service.wait()


async def test_drain_and_wait_may_be_called_by_several_and_again() -> None:
    async with gated(Gate(opened=True).work).service() as service:
        waiting = [asyncio.ensure_future(service.wait()) for _ in range(2)]
        await service.submit(1)
        reports = await asyncio.gather(service.drain(), service.drain(), *waiting)
        assert all(report is reports[0] for report in reports)
        assert await service.drain() is reports[0]


async def test_durable_answers_come_with_the_last_checkpoint_of_a_drain(tmp_path: Path) -> None:
    gate = Gate()
    pipeline = gated(gate.work, checkpoint={"path": str(tmp_path / "state.db"), "interval": 3600.0})
    async with pipeline.service() as service:
        tasks = [asyncio.ensure_future(service.submit(n, durable=True)) for n in range(30)]
        await turns()
        draining = asyncio.ensure_future(service.drain())
        await turns()
        gate.open()
        assert (await draining).account.written == 30
        assert [(await task).record for task in tasks] == [*range(30)]
