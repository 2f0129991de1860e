"""Tests of the `explode` processor."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pipeline.batch import Failed, Many
from pipeline.errors import ConfigError, RecordError
from pipeline.stage import Each, EachAsync
from stages.processors import Explode
from tests.stages.processors.opened import context, each, opened

pytestmark = pytest.mark.anyio


class Order(msgspec.Struct):
    name: str
    lines: Any


async def test_gives_a_copy_of_the_record_for_each_element() -> None:
    record = {"name": "a", "lines": [1, 2]}

    (records,) = await each(Explode(field="lines"), record)

    assert records == [{"name": "a", "lines": 1}, {"name": "a", "lines": 2}]
    assert record == {"name": "a", "lines": [1, 2]}


async def test_typed_records_stay_typed() -> None:
    assert await each(Explode(field="lines"), Order("a", (1, 2))) == [[Order("a", 1), Order("a", 2)]]


async def test_nothing_in_the_field_gives_no_records() -> None:
    assert await each(Explode(field="lines"), {"lines": []}, {"lines": None}, {}, Order("a", None)) == [[], [], [], []]


@pytest.mark.parametrize("value", ["text", {"a": 1}, {1, 2}, 5])
async def test_anything_but_a_list_fails_the_record_and_names_field_and_type(value: Any) -> None:
    async with opened(Explode(field="lines"), Each) as work:
        with pytest.raises(RecordError, match=f"field 'lines' is a {type(value).__name__}, not a list"):
            work.function({"lines": value})


async def test_a_record_without_fields_fails() -> None:
    async with opened(Explode(field="lines"), Each) as work:
        with pytest.raises(RecordError, match="record is a list"):
            work.function([1])


def split(record: str) -> Iterator[str]:
    yield from record.split()


def nothing(record: Any) -> None:
    return None


async def test_a_function_may_return_a_list_or_many_or_nothing_or_yield() -> None:
    assert await each(Explode(function=str.split), "a b", "") == [["a", "b"], []]
    assert await each(Explode(function=split), "a b") == [["a", "b"]]
    assert await each(Explode(function=Many), ["a", "b"]) == [("a", "b")]
    assert await each(Explode(function=nothing), "a") == [()]


@pytest.mark.parametrize("result", ["text", {"a": 1}, {1}, 5])
async def test_a_function_that_returns_no_list_fails_the_record(result: Any) -> None:
    def give(record: Any) -> Any:
        return result

    async with opened(Explode(function=give), Each) as work:
        with pytest.raises(RecordError, match=f"give returned a {type(result).__name__}"):
            work.function({})


async def test_a_function_may_say_that_the_record_failed() -> None:
    def fail(record: Any) -> Any:
        return Failed(record, "odd")

    async with opened(Explode(function=fail), Each) as work:
        assert work.changes
        with pytest.raises(ValueError, match="odd"):
            work.function({})


async def test_an_asynchronous_function_gives_many() -> None:
    async def split(record: str) -> list[str]:
        return record.split()

    async with opened(Explode(function=split), EachAsync) as work:
        result = await work.function("a b")

    assert type(result) is Many
    assert result == ("a", "b")


def test_one_of_field_and_function_is_needed() -> None:
    assert [key for key, _ in Explode().problems()] == ["field"]
    assert [key for key, _ in Explode(field="a", function=split).problems()] == ["field"]
    assert [key for key, _ in Explode(field="a", timeout=1.0).problems()] == ["timeout"]
    assert list(Explode(function="orders:split", timeout=1.0).problems()) == []


async def test_a_name_that_nobody_resolved_is_an_error() -> None:
    with pytest.raises(ConfigError, match="orders:split"):
        await Explode(function="orders:split").open(context())
