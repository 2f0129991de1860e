import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline import Closed, Failed, Many, Pipeline, PipelineError, RecordFailed, Unavailable, Unfinished
from pipeline.batch import Batch
from pipeline.service import Answer
from pipeline.settle.view import open_view
from pipeline.stage import RecordErrors, Sink, SinkContext, Writer
from stages import batchers, processors, sinks, sources
from tests.service.gates import Gate, turns

pytestmark = pytest.mark.anyio


def through(function: Any, **keys: Any) -> Pipeline:
    return (
        Pipeline("through", on_failure=keys.pop("on_failure", "stop"), checkpoint=keys.pop("checkpoint", None))
        | sources.Inlet()
        | batchers.Fixed(size=10, linger=0.005)
        | processors.Call(function, batch=True, **keys)
        | sinks.Discard()
    )


async def poisoned(records: list[int]) -> list[int]:
    if 7 in records:
        raise ValueError("seven")
    return records


async def test_a_poisoned_record_fails_only_its_own_caller() -> None:
    async with through(poisoned).service() as service:
        answers = await asyncio.gather(*(service.submit(n) for n in range(10)), return_exceptions=True)
        failed = answers[7]
        assert isinstance(failed, RecordFailed)
        assert (failed.stage, failed.letter, failed.unavailable) == ("call", None, False)
        assert isinstance(failed.error, ValueError)
        assert failed.__cause__ is failed.error
        assert str(failed).startswith("stage 'call': ValueError: seven")
        others = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert [answer.record for answer in others] == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert (await service.submit(11)).record == 11
    account = (await service.wait()).account
    assert (account.written, account.skipped, account.unsettled) == (10, 1, 0)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_cannot_be_reached_is_told_to_the_callers_of_that_batch(concurrency: int) -> None:
    down = True

    async def remote(records: list[int]) -> list[int]:
        if down:
            raise Unavailable("no route")
        return records

    async with through(remote, concurrency=concurrency).service() as service:
        answers = await asyncio.gather(*(service.submit(n) for n in range(15)), return_exceptions=True)
        assert all(isinstance(answer, RecordFailed) and answer.unavailable for answer in answers)
        down = False
        assert [answer.record for answer in await service.submit_many(range(5))] == [*range(5)]
    assert (await service.wait()).account.skipped == 15


async def test_a_dead_letter_is_saved_and_its_id_is_in_the_error(tmp_path: Path) -> None:
    state = tmp_path / "state.db"
    pipeline = through(poisoned, on_failure="dead_letter", checkpoint={"path": str(state), "interval": 60.0})
    async with pipeline.service() as service:
        answers = await service.submit_many([1, 7, 2])
        error = answers[1].error
        assert isinstance(error, RecordFailed)
        assert error.letter == 1
        assert "dead letter 1" in str(error)
        with pytest.raises(RecordFailed, match="dead letter 2"):
            await service.submit(7)
    async with open_view(state) as view:
        assert [letter.record for letter in await view.letters()] == [7, 7]


async def test_what_cannot_be_reached_leaves_no_dead_letter(tmp_path: Path) -> None:
    async def remote(records: list[int]) -> list[int]:
        raise Unavailable("no route")

    pipeline = through(remote, on_failure="dead_letter", checkpoint={"path": str(tmp_path / "state.db")})
    async with pipeline.service() as service:
        with pytest.raises(RecordFailed, match="no route") as caught:
            await service.submit(1)
        assert caught.value.unavailable
    assert (await service.wait()).dead_letters == 0


async def test_one_that_became_several_fails_with_what_was_written() -> None:
    async def explode(record: int) -> Any:
        return Many([record, -record])

    def check(record: int) -> Any:
        return Failed(record, "negative") if record < 0 else record

    pipeline = (
        Pipeline("several")
        | sources.Inlet()
        | processors.Call(explode)
        | processors.Call(check, name="check")
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        with pytest.raises(RecordFailed, match=r"stage 'check': ValueError: negative") as caught:
            await service.submit(5)
    assert caught.value.records == [5]


class Picky(Sink):
    """Refuses odd numbers, and everything while it is away."""

    away: bool = False

    def durable(self) -> bool:
        return False

    async def open(self, context: SinkContext) -> Writer:
        return _PickyWriter()


class _PickyWriter(Writer):
    async def write(self, batch: Batch) -> None:
        if "away" in batch.records:
            raise Unavailable("the sink is away")
        odd = {index: ValueError("odd") for index, record in enumerate(batch.records) if record % 2}
        if odd:
            raise RecordErrors(odd)


async def test_what_a_sink_refuses_is_told_to_its_callers() -> None:
    pipeline = Pipeline("picky") | sources.Inlet() | batchers.Fixed(size=4, linger=0.005) | Picky()
    async with pipeline.service() as service:
        answers = await service.submit_many([1, 2, 3, 4])
        assert [answer.error is None for answer in answers] == [False, True, False, True]
        assert [str(answer.error) for answer in answers if answer.error] == ["stage 'Picky': ValueError: odd"] * 2
        away = await service.submit_many(["away"] * 4)
        assert all(isinstance(answer.error, RecordFailed) and answer.error.unavailable for answer in away)
        assert (await service.submit(8)).record == 8


async def test_a_stage_that_breaks_its_contract_ends_the_service_and_everybody_is_told() -> None:
    async def short(records: list[int]) -> list[int]:
        await asyncio.sleep(0.01)
        return records[:-1]

    with pytest.raises(PipelineError, match="returned 9 results for 10 records"):
        async with through(short).service() as service:
            answers = await asyncio.gather(*(service.submit(n) for n in range(25)), return_exceptions=True)
            assert {type(answer) for answer in answers} <= {Unfinished, Closed}
            assert all("returned" in str(answer) for answer in answers)
            with pytest.raises(Closed, match="has failed: stage 'call'"):
                await service.submit(1)


async def test_an_error_that_was_told_is_not_raised_again() -> None:
    async def short(records: list[int]) -> list[int]:
        return []

    async with through(short).service() as service:
        with pytest.raises(Unfinished):
            await service.submit(1)
        with pytest.raises(PipelineError, match="returned 0 results"):
            await service.wait()


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    gate = Gate()
    tasks: list[asyncio.Task[Answer]] = []
    with pytest.raises(ZeroDivisionError):
        async with through(gate.work).service() as service:
            tasks.append(asyncio.ensure_future(service.submit(1)))
            await turns()
            gate.open()
            raise ZeroDivisionError
    assert (await tasks[0]).record == 1


async def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    pipeline = Pipeline("locked", checkpoint={"path": str(tmp_path / "x.db")}) | sources.Inlet() | sinks.Discard()
    async with pipeline.service():
        with pytest.raises(PipelineError, match="in use by process"):
            async with pipeline.service():
                pass


async def test_a_service_starts_once() -> None:
    service = (Pipeline("once") | sources.Inlet() | sinks.Discard()).service()
    with pytest.raises(Closed, match="has not started"):
        await service.submit(1)
    async with service:
        pass
    with pytest.raises(Closed, match="ended"):
        await service.submit(1)
    with pytest.raises(RuntimeError, match="starts once"):
        async with service:
            pass


async def test_records_of_other_sources_fail_as_their_stage_says() -> None:
    def check(record: Any) -> Any:
        return Failed(record, "no") if record == "bad" else record

    gate = Gate()

    async def records() -> Any:
        yield "good"
        await gate.work([])
        yield "bad"

    inlet = Pipeline("mixed") | sources.Inlet()
    pipeline = Pipeline.merge(inlet, Pipeline("other") | records()) | processors.Call(check) | sinks.Discard()
    with pytest.raises(PipelineError, match="stage 'call'"):
        async with pipeline.service() as service:
            with pytest.raises(RecordFailed):
                await service.submit("bad")
            assert (await service.submit("good")).record == "good"
            gate.open()
            await service.wait()
