import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import ConfigError, DeadlinePassed, Failed, Many, Pipeline, RecordFailed
from pipeline.service import Answer
from pipeline.testing import ManualClock
from stages import batchers, processors, sinks, sources
from tests.service.gates import Gate, turns

pytestmark = pytest.mark.anyio


async def squares(records: list[int]) -> list[Any]:
    await asyncio.sleep(0)
    return [("square", record**2) for record in records]


def branching() -> Pipeline:
    return (
        Pipeline("branching")
        | sources.Inlet()
        | [
            processors.Map(set={"left": "n + 1"}) | sinks.Discard(name="left"),
            processors.Map(set={"right": "n * 2"}) | sinks.Discard(name="right", when="n > 1"),
        ]
    )


async def test_of_several_sinks_all_records_are_the_answer_or_those_of_the_one_that_is_named() -> None:
    async with branching().service() as service:
        both = await service.submit({"n": 5})
        assert sorted(both.records, key=str) == [{"n": 5, "left": 6}, {"n": 5, "right": 10}]
        assert (await service.submit({"n": 5}, answer="right")).record == {"n": 5, "right": 10}
        assert (await service.submit({"n": 1}, answer="right")).records == []
        assert (await service.submit({"n": 1}, answer="left")).record == {"n": 1, "left": 2}
        with pytest.raises(ConfigError, match="no sink 'rihgt' to answer from; did you mean 'right'"):
            await service.submit({"n": 1}, answer="rihgt")


async def test_the_sink_to_answer_from_can_be_named_once_for_all() -> None:
    async with branching().service(answer="left") as service:
        assert (await service.submit({"n": 5})).record == {"n": 5, "left": 6}
        assert (await service.submit({"n": 5}, answer="right")).record == {"n": 5, "right": 10}
    with pytest.raises(ConfigError, match="no sink 'middle' to answer from; it has left, right"):
        branching().service(answer="middle")


async def test_branches_that_meet_again_answer_when_both_are_through() -> None:
    async def slow(records: list[Any]) -> list[Any]:
        await asyncio.sleep(0.02)
        return [("slow", record) for record in records]

    pipeline = (
        Pipeline("diamond")
        | sources.Inlet()
        | [processors.Call(slow, batch=True, name="slow"), processors.Call(squares, batch=True, name="fast")]
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        answers = await service.submit_many(range(20))
    for n, answer in enumerate(answers):
        assert sorted(answer.records) == [("slow", n), ("square", n**2)]


async def test_the_records_of_a_group_all_get_what_the_group_became() -> None:
    async def total(records: list[int]) -> list[Any]:
        if 13 in records:
            raise ValueError("thirteen")
        return [{"total": sum(records)}]

    pipeline = (
        Pipeline("grouped")
        | sources.Inlet()
        | processors.Filter(lambda n: n >= 0)
        | batchers.Fixed(size=4, linger=10.0)
        | processors.Call(total, batch=True, aggregate=True)
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        answers = await service.submit_many([1, 2, -5, 3, 4])
        assert [answer.records for answer in answers] == [[{"total": 10}]] * 2 + [[]] + [[{"total": 10}]] * 2
        failed = await service.submit_many([13, 2, 3, 4])
        assert all(isinstance(answer.error, RecordFailed) for answer in failed)


async def test_groups_of_groups_answer_everybody_in_them() -> None:
    async def total(records: list[int]) -> list[int]:
        return [sum(records)]

    pipeline = (
        Pipeline("nested")
        | sources.Inlet()
        | batchers.Fixed(size=2, linger=10.0, name="pairs")
        | processors.Call(total, batch=True, aggregate=True, name="pair")
        | batchers.Fixed(size=2, linger=10.0, name="fours")
        | processors.Call(total, batch=True, aggregate=True, name="four")
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        answers = await service.submit_many([1, 2, 3, 4, 10, 20, 30, 40])
    assert [answer.records for answer in answers] == [[10]] * 4 + [[100]] * 4


async def test_a_group_is_finished_for_the_others_when_the_one_that_stands_for_it_is_late() -> None:
    clock, gate = ManualClock(), Gate()

    async def total(records: list[int]) -> list[int]:
        return [sum(records)]

    pipeline = (
        Pipeline("late")
        | sources.Inlet()
        | batchers.Fixed(size=2, linger=10.0, name="pairs")
        | processors.Call(total, batch=True, aggregate=True, name="total")
        | batchers.Fixed(size=1, name="singly")
        | processors.Call(gate.work, batch=True, name="gate")
        | processors.Call(gate.work, batch=True, name="again")
        | sinks.Discard()
    )
    async with pipeline.service(clock=clock) as service:
        first = [asyncio.ensure_future(service.submit(n, deadline=deadline)) for n, deadline in ((1, None), (2, 1.0))]
        second = [asyncio.ensure_future(service.submit(n, deadline=deadline)) for n, deadline in ((3, None), (4, 1.0))]
        await turns()
        await clock.advance(2.0)
        gate.open()
        await clock.advance(1.0)
        assert [(await first[0]).record, (await second[0]).record] == [3, 7]
        for late in (first[1], second[1]):
            with pytest.raises(DeadlinePassed):
                await late


async def test_a_group_that_another_source_shares_answers_too() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 100
        await asyncio.Event().wait()

    async def total(records: list[int]) -> list[int]:
        return [sum(records)]

    pipeline = (
        Pipeline.merge(Pipeline("shared") | sources.Inlet(), Pipeline("stream") | stream())
        | batchers.Fixed(size=2, linger=10.0)
        | processors.Call(total, batch=True, aggregate=True)
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        assert (await service.submit(1)).records == [101]


async def test_of_several_inlets_one_is_named() -> None:
    inlets = Pipeline.merge(
        Pipeline("inlets") | sources.Inlet(name="left") | processors.Map(set={"side": "'left'"}, name="l"),
        Pipeline("other") | sources.Inlet(name="right") | processors.Map(set={"side": "'right'"}, name="r"),
    )
    async with (inlets | sinks.Discard()).service() as service:
        answers = await asyncio.gather(
            *(service.submit({"n": n}, source=name) for n in range(50) for name in ("left", "right"))
        )
        assert [answer.record for answer in answers] == [
            {"n": n, "side": name} for n in range(50) for name in ("left", "right")
        ]
        with pytest.raises(ConfigError, match="several inlets"):
            await service.submit({"n": 1})
        with pytest.raises(ConfigError, match="no inlet 'middle', but left, right"):
            await service.submit({"n": 1}, source="middle")


async def test_the_callers_record_is_left_alone() -> None:
    pipeline = Pipeline("own") | sources.Inlet() | processors.Map(set={"n": "n + 1"}) | sinks.Discard()
    async with pipeline.service() as service:
        record = {"n": 1}
        assert (await service.submit(record)).record == {"n": 2}
        assert record == {"n": 1}


OUTCOMES = st.lists(st.sampled_from(["keep", "drop", "fail", "several", "none"]), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(OUTCOMES, st.integers(1, 3), st.booleans(), st.integers(1, 9), st.booleans())
async def test_whatever_becomes_of_them_everybody_gets_their_own_answer(
    outcomes: list[str], concurrency: int, ordered: bool, size: int, whole: bool
) -> None:
    async def one(record: tuple[int, str]) -> Any:
        number, outcome = record
        await asyncio.sleep(number % 3 * 0.0001)
        if outcome == "fail":
            raise ValueError(f"bad {number}")
        return {"keep": number, "drop": None, "several": Many([number, number]), "none": Many([])}[outcome]

    async def many(records: list[tuple[int, str]]) -> list[Any]:
        found: list[Any] = []
        for record in records:
            try:
                found.append(await one(record))
            except ValueError as error:
                found.append(Failed(record, error))
        return found

    call = processors.Call(many if whole else one, batch=whole, concurrency=concurrency, ordered=ordered)
    pipeline = Pipeline("any") | sources.Inlet() | batchers.Fixed(size=size, linger=0.002) | call | sinks.Discard()
    async with pipeline.service() as service:
        answers = await asyncio.gather(*(service.submit(pair) for pair in enumerate(outcomes)), return_exceptions=True)
        assert service.counts().open == 0
    for number, (outcome, answer) in enumerate(zip(outcomes, answers, strict=True)):
        if outcome == "fail":
            assert isinstance(answer, RecordFailed)
            assert f"bad {number}" in str(answer)
        else:
            assert isinstance(answer, Answer)
            assert answer.records == {"keep": [number], "several": [number, number]}.get(outcome, [])
