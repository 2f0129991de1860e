"""Tests of the `filter` processor."""

from typing import Any

import msgspec
import pytest

from pipeline.batch import Origin
from pipeline.errors import ConfigError
from pipeline.expression import EvaluationError
from pipeline.stage import Each, EachAsync
from stages.processors import Filter
from tests.stages.processors.opened import each, opened

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct, gc=False):
    delay: int | None


async def test_keeps_the_records_for_which_the_expression_holds() -> None:
    where = "delay is not None and delay > 15"

    assert await each(Filter(where), {"delay": 16}, {"delay": 15}, {"delay": None}, {}) == [True, False, False, False]


async def test_reads_typed_records_and_dicts_in_one_run() -> None:
    assert await each(Filter("delay == 1"), Flight(1), {"delay": 1}, Flight(2)) == [True, True, False]


async def test_an_expression_that_fails_fails_its_record_and_names_the_field() -> None:
    async with opened(Filter("delay > 15"), Each) as work:
        with pytest.raises(EvaluationError, match="delay"):
            work.function({"delay": "late"})
        with pytest.raises(EvaluationError, match="delay"):
            work.function(Flight(None))
        with pytest.raises(EvaluationError):
            work.function("no record")
        assert work.function({"delay": 16}) is True


async def test_an_expression_over_the_origin_is_given_it() -> None:
    async with opened(Filter("_origin.number % 2 == 0 and delay > 0"), Each) as work:
        assert work.origins
        assert work.function({"delay": 1}, Origin("flights", 4, "")) is True
        assert work.function(Flight(1), Origin("flights", 5, "")) is False


async def test_a_text_that_is_no_expression_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"stage 'stage' \(processor filter\): where: .*\(character \d+\)"):
        await each(Filter("delay >"))


async def test_a_function_decides_by_the_truth_of_what_it_returns() -> None:
    async with opened(Filter(lambda record: record["tags"]), Each) as work:
        assert work.gives == "keep"
        assert [bool(work.function({"tags": tags})) for tags in ([], [1])] == [False, True]


async def test_an_asynchronous_function_gives_the_record_or_nothing() -> None:
    async def late(record: dict[str, int]) -> bool:
        return record["delay"] > 1

    async with opened(Filter(late), EachAsync) as work:
        assert await work.function({"delay": 2}) == {"delay": 2}
        assert await work.function({"delay": 1}) is None


def test_a_timeout_is_refused_on_what_cannot_be_interrupted() -> None:
    async def asked(record: Any) -> bool:
        return bool(record)

    assert [key for key, _ in Filter("delay > 1", timeout=1.0).problems()] == ["timeout"]
    assert [key for key, _ in Filter(bool, timeout=1.0).problems()] == ["timeout"]
    assert list(Filter(asked, timeout=1.0).problems()) == []


def test_a_generator_is_refused_for_it_would_always_be_true() -> None:
    def generated(record: Any) -> Any:
        yield record

    assert [key for key, _ in Filter(generated).problems()] == ["where"]
