"""Differences are found whatever their kind, and said by name and field."""

from typing import Any

import pytest

from pipeline.cases.compare import differences
from pipeline.cases.declared import Case, Expected
from pipeline.cases.load import Ready
from pipeline.cases.trial import Fell, Outcome
from pipeline.plan.document import Mark


def found(expected: list[Any], records: list[Any], *failures: Fell, **keys: Any) -> list[str]:
    case = Case(name="a", input=[], output=expected, **keys)
    loaded: Any = None
    ready = Ready(case, loaded, Mark("a.tests.yaml"), {}, {"out": expected})
    return differences(ready, Outcome({"out": records}, list(failures)))


@pytest.mark.parametrize(
    ("expected", "records", "lines"),
    [
        ([{"a": 1}], [{"a": 1.0}], []),
        ([{"a": float("nan")}], [{"a": float("nan")}], []),
        ([{"a": 1}], [{"a": True}], ["sink 'out', record 1:", "  a: expected 1, got true"]),
        ([{"a": 1}], [{"b": 1}], ["sink 'out', record 1:", "  a: expected 1, missing", "  b: not expected, got 1"]),
        ([{"a": 1}, {"a": 2}], [{"a": 2}], ["sink 'out': missing: {\"a\":1}"]),
        ([{"a": 1}], [{"a": 1}, {"a": 1}], ["sink 'out': not expected: {\"a\":1}"]),
        (["x"], ["y"], ["sink 'out', record 1:", '  expected "x"', '  got      "y"']),
    ],
)
def test_a_difference_is_said_by_record_and_field(expected: list[Any], records: list[Any], lines: list[str]) -> None:
    assert found(expected, records) == lines


def test_order_counts_unless_it_is_said_that_it_does_not() -> None:
    assert found([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}])
    assert not found([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}], order="any")


def test_without_an_order_those_that_are_most_alike_are_compared() -> None:
    lines = found([{"a": 1, "b": 1}, {"a": 2, "b": 2}], [{"a": 2, "b": 3}, {"a": 1, "b": 1}], order="any")
    assert lines == ["sink 'out', record 1:", "  b: expected 2, got 3"]


def test_fields_that_are_not_named_may_be_allowed() -> None:
    assert found([{"a": {"b": 1}}], [{"a": {"b": 1, "c": 2}, "d": 3}])
    assert not found([{"a": {"b": 1}}], [{"a": {"b": 1, "c": 2}, "d": 3}], fields="named")


def test_a_failure_that_nobody_expected_is_a_difference_and_so_is_one_that_did_not_come() -> None:
    fell = Fell("check", "ValueError: too late", "skip")
    assert found([], [], fell) == ["not expected: stage 'check' failed: ValueError: too late, skip"]
    assert not found([], [], fell, failures=[Expected(stage="check", error="too late")])
    lines = found([], [], fell, failures=[Expected(stage="check", error="too late", outcome="dead_letter")])
    assert lines == [
        "no failure in stage 'check' with 'too late' (dead_letter)",
        "  got 'ValueError: too late' (skip)",
    ]


def test_of_many_differences_the_first_are_shown_and_the_others_counted() -> None:
    assert found([], [{"a": number} for number in range(50)])[-1] == "… and 30 more"
