"""Tests of the `map` processor."""

import gc
from collections.abc import Callable
from copy import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.batch import Origin
from pipeline.errors import ConfigError, RecordError
from pipeline.expression import EvaluationError
from pipeline.stage import Each
from stages.processors import Map
from tests.stages.processors.opened import context, each, opened

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct, gc=False, frozen=True):
    origin: str
    miles: int = 0


class Named(msgspec.Struct):
    a: int
    b: int | None = None


async def test_computes_every_field_from_the_record_as_it_came_in() -> None:
    assert await each(Map(set={"a": "b", "b": "a"}), {"a": 1, "b": 2}) == [{"a": 2, "b": 1}]


async def test_a_record_whose_expressions_fail_is_left_as_it_was() -> None:
    record = {"a": 1, "b": "x"}
    async with opened(Map(set={"a": "a + 1", "c": "b + 1"}, drop=["b"]), Each) as work:
        with pytest.raises(EvaluationError, match="b"):
            work.function(record)

    assert record == {"a": 1, "b": "x"}


async def test_renames_in_place_and_swaps() -> None:
    (record,) = await each(Map(rename={"a": "b", "b": "a"}), {"a": 1, "b": 2, "c": 3})

    assert list(record.items()) == [("b", 1), ("a", 2), ("c", 3)]


async def test_a_renamed_field_replaces_one_of_its_new_name_only_where_it_is_there_itself() -> None:
    records = await each(Map(rename={"a": "b"}), {"b": 2, "a": 1}, {"b": 2})

    assert records == [{"b": 1}, {"b": 2}]


async def test_sets_then_renames_then_keeps_or_drops() -> None:
    assert await each(Map(set={"t": "a * 2"}, rename={"t": "twice"}, keep=["twice", "b"]), {"a": 2}) == [{"twice": 4}]
    assert await each(Map(rename={"a": "b"}, drop=["b", "z"]), {"a": 2, "c": 3}) == [{"c": 3}]


async def test_keeping_no_field_leaves_an_empty_record() -> None:
    assert await each(Map(keep=[]), {"a": 2}) == [{}]


async def test_an_expression_over_the_origin_is_given_it() -> None:
    async with opened(Map(set={"n": "_origin.number"}, drop=["a"]), Each) as work:
        assert work.origins
        assert work.function({"a": 1}, Origin("flights", 7, "")) == {"n": 7}


async def test_a_typed_record_becomes_one_of_a_new_type_with_the_computed_fields() -> None:
    records = await each(
        Map(set={"km": "miles * 1.6", "origin": "lower(origin)"}), Flight("JFK", 10), Flight("LGA", 20)
    )

    assert [msgspec.structs.asdict(record) for record in records] == [
        {"origin": "jfk", "miles": 10, "km": 16.0},
        {"origin": "lga", "miles": 20, "km": 32.0},
    ]
    assert type(records[0]) is type(records[1])
    assert not gc.is_tracked(records[0])
    assert records[0].__struct_config__.frozen


async def test_a_typed_record_is_renamed_and_cut_down() -> None:
    spec = Map(set={"far": "miles > 15"}, rename={"origin": "airport"}, keep=["airport", "far"])

    (record,) = await each(spec, Flight("JFK", 10))

    assert msgspec.to_builtins(record) == {"airport": "JFK", "far": False}


async def test_a_typed_record_keeps_the_names_it_is_written_with() -> None:
    class Renamed(msgspec.Struct, rename="camel"):
        from_where: str
        miles: int

    (record,) = await each(Map(set={"miles": "miles + 1"}), Renamed("JFK", 1))

    assert msgspec.json.encode(record) == b'{"fromWhere":"JFK","miles":2}'


async def test_a_typed_record_cannot_get_a_field_that_is_no_name() -> None:
    async with opened(Map(rename={"origin": "the origin"}), Each) as work:
        with pytest.raises(RecordError, match="the origin"):
            work.function(Flight("JFK"))


async def test_dicts_and_typed_records_may_come_in_any_order() -> None:
    spec = Map(set={"far": "miles > 15"}, drop=["origin"])

    records = await each(spec, Flight("JFK", 10), {"origin": "LGA", "miles": 20}, Flight("LGA", 20))

    assert msgspec.to_builtins(records) == [
        {"miles": 10, "far": False},
        {"miles": 20, "far": True},
        {"miles": 20, "far": True},
    ]


async def test_a_typed_record_is_given_its_origin_too() -> None:
    async with opened(Map(set={"n": "_origin.number"}), Each) as work:
        record = work.function(Flight("JFK", 10), Origin("flights", 7, ""))
        assert msgspec.to_builtins(record) == {"origin": "JFK", "miles": 10, "n": 7}


async def test_a_record_without_fields_fails() -> None:
    for spec in (Map(keep=["a"]), Map(rename={"a": "b"}), Map(set={"a": "1"})):
        async with opened(spec, Each) as work:
            with pytest.raises(RecordError, match=r"list|fields"):
                work.function([1])


async def test_a_text_that_is_no_expression_is_refused_with_its_field() -> None:
    with pytest.raises(ConfigError, match=r"set\.late: "):
        await Map(set={"late": "delay >"}).open(context())


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (Map(), "set"),
        (Map(keep=["a"], drop=["b"]), "drop"),
        (Map(set={"a": "1"}, rename={"b": "a"}), "rename"),
        (Map(rename={"a": "c", "b": "c"}), "rename"),
        (Map(rename={"a": "b"}, keep=["a"]), "keep"),
        (Map(rename={"a": "b"}, drop=["a"]), "drop"),
        (Map(keep=["a"], timeout=1.0), "timeout"),
    ],
)
def test_keys_that_contradict_each_other_are_named(spec: Map, key: str) -> None:
    assert [name for name, _ in spec.problems()] == [key]


def test_keys_that_fit_are_not_complained_about() -> None:
    assert list(Map(set={"a": "1"}, rename={"b": "c", "c": "b"}, keep=["b", "c"]).problems()) == []


@given(some.dictionaries(some.sampled_from("abc"), some.integers()), some.sets(some.sampled_from("abcd")))
def test_keep_and_drop_of_the_same_fields_part_a_record_in_two(record: dict[str, int], fields: set[str]) -> None:
    kept, dropped = (_run(spec, dict(record)) for spec in (Map(keep=sorted(fields)), Map(drop=sorted(fields))))

    assert kept | dropped == record
    assert not set(kept) & set(dropped)


@pytest.mark.parametrize(
    "spec",
    [
        Map(set={"c": "a * 2"}),
        Map(set={"b": "a + 1", "c": "b"}, drop=["a"]),
        Map(rename={"a": "b"}),
        Map(set={"c": "10 // a"}, rename={"b": "d"}, keep=["c", "d"]),
        Map(keep=["b"]),
    ],
)
@given(
    some.lists(
        some.one_of(
            some.builds(Named, some.integers(-1, 2), some.none() | some.integers()),
            some.builds(Flight, some.just("UA"), some.integers()),
            some.fixed_dictionaries({"a": some.integers(-1, 2)}, optional={"b": some.integers()}),
            some.integers(),
        ),
        max_size=12,
    )
)
def test_many_records_become_what_each_of_them_would(spec: Map, records: list[Any]) -> None:
    work = _opened(spec)
    loop = work.loop
    assert loop is not None
    expected: list[Any] = []
    became: list[Any] = []
    failures: list[str] = []
    copies = [copy(record) for record in records]
    runs: list[Callable[[], None]] = [
        lambda: expected.extend(map(work.function, copies)),
        lambda: loop(records, became.append),
    ]
    for run in runs:
        try:
            run()
        except RecordError as error:
            failures.append(str(error))
    assert repr(became) == repr(expected)
    assert list(map(type, became)) == list(map(type, expected))
    assert len(set(failures)) == len(failures) // 2
    assert repr(records[len(became) :][1:]) == repr(copies[len(became) :][1:])


async def test_many_typed_records_are_no_more_watched_by_the_collector_than_they_were() -> None:
    async with opened(Map(set={"far": "miles > 100"}), Each) as work:
        made: list[Any] = []
        assert work.loop is not None
        work.loop([Flight("UA", 3)] * 3, made.append)
        assert not any(map(gc.is_tracked, made))
        assert type(made[0]) is type(work.function(Flight("UA")))


def _run(spec: Map, record: Any) -> Any:
    return _opened(spec).function(record)


def _opened(spec: Map) -> Each:
    coroutine = spec.open(context())
    try:
        coroutine.send(None)
    except StopIteration as stop:
        assert isinstance(stop.value, Each)
        return stop.value
    raise AssertionError("open waited")
