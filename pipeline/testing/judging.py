"""What the checks of all roles share."""

import copy
from typing import Any

import msgspec

from pipeline.batch import Failed
from pipeline.stage import Stage

__all__ = ("check_declaration", "same", "shown", "through_json", "value_of")


def check_declaration(first: Stage, second: Stage) -> None:
    """Check what a declaration says of itself."""
    who = type(first).__name__
    identity = first.identity()
    if through_json(dict(identity), f"{who}.identity()") != through_json(dict(second.identity()), who):
        raise AssertionError(f"{who}: two declarations made alike have different identities, so no run could resume")
    problems = list(first.problems())
    if problems:
        raise AssertionError(f"{who}: its keys are wrong: {problems}")


def through_json(value: Any, what: str) -> Any:
    """Return a value as it comes back from a state file."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} must be data that JSON can hold, not {value!r}: {error}") from error


def value_of(record: Any) -> Any:
    """Return what two records are compared by; a failed one is its text."""
    if isinstance(record, Failed):
        return ("failed", copy.deepcopy(record.record), f"{type(record.error).__name__}: {record.error}")
    return record


def same(expected: list[Any], found: list[Any], what: str) -> None:
    """Check that two lists of records are the same, and say where they part."""
    for index, (one, other) in enumerate(zip(expected, found, strict=False)):
        if one != other:
            raise AssertionError(f"{what}: record {index} is {shown(other)}, expected {shown(one)}")
    if len(expected) != len(found):
        raise AssertionError(f"{what}: {len(found)} records, expected {len(expected)}")


def shown(value: Any) -> str:
    """Return a short text of a value."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
