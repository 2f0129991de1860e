"""Tests of the `validate` processor and its grammar of types."""

from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.errors import ConfigError, RecordError
from pipeline.stage import Each
from stages.processors import Validate
from stages.processors.rules import read_rule
from tests.stages.processors.opened import context, opened

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct):
    origin: str
    miles: int = 0


VALUES: list[tuple[Any, list[Any], list[Any]]] = [
    ("str", ["", "x"], [1, None, b"x"]),
    ("int", [1, -1, 10**30], ["1", 1.0, True, None]),
    ("float", [1.5, 1], ["1.5", True]),
    ("bool", [True], [1, "true"]),
    ("list", [[], [1, "a"], (1,)], ["ab", {}]),
    ("dict", [{}, {"a": 1}], [[], "a"]),
    ("any", [None, 1, [2]], []),
    ("date", [date(2024, 1, 2), "2024-01-02"], ["2024-13-02", 5]),
    ("datetime", ["2024-01-02T03:04:05Z"], ["2024-01-02", 5]),
    ("str?", ["x", None], [1]),
    ("int >= 0", [0, 1], [-1]),
    ("int > 0, <= 10", [1, 10], [0, 11]),
    ("int? >= 0 < 10", [0, 9, None], [-1, 10]),
    ("float >= -0.5", [-0.5, 2], [-0.6, float("nan")]),
    ("str len >= 2 len <= 3", ["ab", "abc"], ["a", "abcd"]),
    ("list[int >= 0] len <= 2", [[], [0, 1]], [[-1], [1, 2, 3], ["1"]]),
    ("list[list[str]?]?", [None, [["a"], None]], [[[1]], ["a"]]),
    ({"type": "str", "pattern": "^[A-Z]{3}$"}, ["JFK"], ["jfk", "JFKX"]),
    ({"type": "str", "one_of": ["a", "b"]}, ["a", "b"], ["c", 1]),
    ({"type": "int", "one_of": [1, 2], "optional": True}, [1, None], [3, "1"]),
    ({"type": "int", "ge": 0, "lt": 10, "multiple_of": 5}, [0, 5], [10, 3, -5]),
    ({"of": {"fields": {"sku": "str", "count": "int > 0"}}}, [[{"sku": "a", "count": 1}]], [[{"sku": "a"}], [1]]),
    ({"fields": {"odd name": "str?"}, "optional": True}, [None, {}, {"odd name": "x"}], [{"odd name": 1}]),
]


@pytest.mark.parametrize(("rule", "good", "bad"), VALUES)
async def test_a_value_passes_as_it_is_or_fails_its_record(rule: Any, good: list[Any], bad: list[Any]) -> None:
    async with opened(Validate({"a": rule}), Each) as work:
        assert work.gives == "record"
        for value in good:
            record = {"a": value, "other": 1}
            assert work.function(record) is record
            assert record["a"] is value
        for value in bad:
            with pytest.raises(RecordError, match="field 'a"):
                work.function({"a": value})


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"n": "1"}, "field 'n': expected int, got str"),
        ({"n": -1}, "field 'n': expected int >= 0, got int -1"),
        ({}, "field 'n' is missing"),
        ({"n": 1, "s": "abc"}, "field 's': expected str of length <= 2, got str of length 3"),
        ({"n": 1, "d": {"l": [{"k": 1}, {}]}}, "field 'd.l[1].k' is missing"),
        ({"n": 1, "d": {"l": [{"k": 1}, {"k": 7}]}}, "field 'd.l[1].k': expected int <= 5, got int 7"),
        ({"n": 1, "d": []}, "field 'd': expected dict | null, got list"),
        ({"n": 1, "e": "c"}, "field 'e': 'c' is none of the values allowed"),
        ("text", "record: expected dict, got str"),
    ],
)
async def test_an_error_names_the_field_what_was_expected_and_what_is_there(record: Any, text: str) -> None:
    schema: dict[str, Any] = {
        "n": "int >= 0",
        "s": "str? len <= 2",
        "d": {"fields": {"l": {"of": {"fields": {"k": "int <= 5"}}}}, "optional": True},
        "e": {"type": "str", "one_of": ["a", "b"], "optional": True},
    }
    async with opened(Validate(schema), Each) as work:
        with pytest.raises(RecordError) as raised:
            work.function(record)

    assert str(raised.value) == text


async def test_typed_records_are_checked_too() -> None:
    async with opened(Validate({"miles": "int >= 0"}), Each) as work:
        flight = Flight("JFK", 1)
        assert work.function(flight) is flight
        with pytest.raises(RecordError, match="field 'miles': expected int >= 0, got int -1"):
            work.function(Flight("JFK", -1))


async def test_unknown_fields_are_dropped_on_request() -> None:
    async with opened(Validate({"miles": "int", "odd name": "str?"}, unknown="drop"), Each) as work:
        assert work.function({"miles": 1, "a": 2, "odd name": "x"}) == {"miles": 1, "odd name": "x"}
        assert msgspec.to_builtins(work.function(Flight("JFK", 1))) == {"miles": 1}


async def test_unknown_fields_are_refused_on_request() -> None:
    async with opened(Validate({"miles": "int"}, unknown="forbid"), Each) as work:
        assert work.function({"miles": 1}) == {"miles": 1}
        with pytest.raises(RecordError, match="field 'a' is unknown"):
            work.function({"miles": 1, "a": 2})
        with pytest.raises(RecordError, match="field 'origin' is unknown"):
            work.function(Flight("JFK", 1))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("integer", "unknown type 'integer'; did you mean 'int'?"),
        ("", "unknown type ''"),
        ("int >> 3", "can't read '>> 3'"),
        ("int = 3", "can't read '= 3'"),
        ("int >= 0.5", "0.5 must be a whole number"),
        ("int >= 0 >= 1", "'>=' is given twice"),
        ("str >= 1", "'ge' goes with int, float, not with str"),
        ("int len >= 1", "'min_length' goes with str, list, dict, not with int"),
        ("str len > 1", "'len' is compared by >= or <="),
        ("list[int", "']' is missing"),
        ("list[itn]", "unknown type 'itn'; did you mean 'int'?"),
        ("str[int]", "can't read '[int]'"),
        ({"typ": "int"}, "unknown key 'typ'; did you mean 'type'?"),
        ({"ge": 1}, "'type' is missing"),
        ({"type": 5}, "'type' must be a text"),
        ({"type": "str", "pattern": "("}, "unterminated"),
        ({"type": "str", "one_of": []}, "'one_of' must be a list of values of type str"),
        ({"type": "str", "one_of": [1]}, "'one_of' must be a list of values of type str"),
        ({"type": "float", "one_of": [1.5]}, "'one_of' goes with a plain type str or int"),
        ({"type": "int", "optional": "yes"}, "'optional' must be true or false"),
        ({"type": "dict", "fields": ["a"]}, "'fields' must give each field its type"),
        ({"type": "int", "ge": "1"}, "ge"),
        ({"type": "int", "ge": 1, "gt": 1}, "ge"),
    ],
)
async def test_a_rule_that_cannot_be_read_is_a_problem_and_never_a_traceback(rule: Any, text: str) -> None:
    spec = Validate({"a": rule, "b": "int"})

    (problem,) = spec.problems()

    assert problem[0] == "schema"
    assert problem[1].startswith("'a': ")
    assert text in problem[1]
    with pytest.raises(ConfigError, match="'a': "):
        await spec.open(context())


@given(some.text(alphabet="intstrlenlist[]?<>=, 0123.-", max_size=30))
def test_reading_any_text_gives_a_rule_or_says_what_is_wrong(text: str) -> None:
    try:
        rule = read_rule(text)
    except ValueError as error:
        assert str(error)
    else:
        msgspec.json.Decoder(rule.annotation)
