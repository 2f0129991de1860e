import asyncio
from typing import Any

import pytest

from pipeline import ConfigError, Failed, Many, Overloaded, Pipeline, RecordFailed
from stages import batchers, processors, sinks, sources

pytestmark = pytest.mark.anyio


async def squares(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    await asyncio.sleep(0.001)
    return [{"n": record["n"], "square": record["n"] ** 2} for record in records]


def squared() -> Pipeline:
    return (
        Pipeline("squared")
        | sources.Inlet()
        | batchers.Adaptive(target_latency=0.1)
        | processors.Call(squares, batch=True)
        | sinks.Discard()
    )


async def test_every_caller_gets_its_own_answer() -> None:
    async with squared().service() as service:
        answers = await asyncio.gather(*(service.submit({"n": n}) for n in range(300)))
        assert [answer.record["square"] for answer in answers] == [n**2 for n in range(300)]
        assert [answer.record["n"] for answer in await service.submit_many({"n": n} for n in range(50))] == [*range(50)]
        counts = service.counts()
    assert (counts.submitted, counts.answered, counts.open) == (350, 350, 0)
    report = await service.wait()
    assert report.outcome == "drained"
    assert report.account.written == 350


async def test_answers_hold_what_reached_the_sinks() -> None:
    def several(record: dict[str, Any]) -> Any:
        if record["n"] == 0:
            return None
        if record["n"] == 1:
            return record
        if record["n"] < 0:
            return Failed(record, "negative")
        return Many({"part": part} for part in range(record["n"]))

    pipeline = Pipeline("several") | sources.Inlet() | processors.Call(several) | sinks.Discard()
    async with pipeline.service() as service:
        filtered, one, three, bad = await service.submit_many([{"n": 0}, {"n": 1}, {"n": 3}, {"n": -1}])
    assert (filtered.records, filtered.record) == ([], None)
    assert one.record == {"n": 1}
    assert three.records == [{"part": 0}, {"part": 1}, {"part": 2}]
    with pytest.raises(ValueError, match="became 3"):
        _ = three.record
    assert isinstance(bad.error, RecordFailed)
    with pytest.raises(RecordFailed, match=r"stage 'call': ValueError: negative"):
        _ = bad.record


async def test_more_than_the_capacity_is_refused() -> None:
    pipeline = Pipeline("small") | sources.Inlet(capacity=2) | sinks.Discard()
    async with pipeline.service() as service:
        await service.pause()
        waiting = [asyncio.ensure_future(service.submit(n)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 records wait"):
            await service.submit("one more")
        await service.resume()
        assert [answer.record for answer in await asyncio.gather(*waiting)] == [0, 1]


async def test_what_would_collect_for_ever_is_refused() -> None:
    with pytest.raises(ConfigError, match="sink collect"):
        (Pipeline("collecting") | sources.Inlet() | sinks.Collect()).service()
    with pytest.raises(ConfigError, match="on_failure: collect"):
        (Pipeline("collecting", on_failure="collect") | sources.Inlet() | sinks.Discard()).service()


async def test_arguments_that_mean_nothing_are_refused_and_disturb_nobody() -> None:
    async with squared().service() as service:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"priority": "high"}, "priority='high': expected a whole number"),
            ({"priority": 1.5}, "priority=1.5: expected a whole number"),
            ({"deadline": "3"}, "deadline='3': expected a duration with a unit"),
            ({"deadline": float("nan")}, "deadline=nan: expected a finite number of seconds"),
        ]
        for wrong, text in cases:
            with pytest.raises(ConfigError, match=text):
                await service.submit({"n": 1}, **wrong)
            with pytest.raises(ConfigError, match=text):
                await service.submit_many([{"n": 1}], **wrong)
        with pytest.raises(ConfigError, match="not one dict; submit takes one"):
            await service.submit_many({"n": 1})
        assert (await service.submit({"n": 3})).record == {"n": 3, "square": 9}
        assert service.counts().open == 0


async def test_without_an_inlet_there_is_nothing_to_submit_to() -> None:
    pipeline = Pipeline("reading") | [1, 2, 3] | sinks.Discard()
    async with pipeline.service() as service:
        with pytest.raises(ConfigError, match="no inlet"):
            await service.submit(4)
        assert (await service.wait()).account.written == 3
