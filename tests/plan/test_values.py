"""Values against declarations: what is right is taken as declared, what is wrong is told where it is."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from pipeline.plan.document import Path
from pipeline.plan.scalars import INVALID
from pipeline.plan.schema import keys_of
from pipeline.plan.values import check_value
from pipeline.stage import Backoff, Duration, Rate, Restart, Retry, Size
from tests.plan import kinds


def checked(value: Any, annotation: Any, *, python: bool = False) -> tuple[Any, list[tuple[Path, str]]]:
    """Return the value as taken, and the problems."""
    found: list[tuple[Path, str]] = []

    def report(where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        found.append((where, text))

    return check_value(value, annotation, (), report, python=python), found


@pytest.mark.parametrize(
    ("value", "annotation", "taken"),
    [
        ("x", str, "x"),
        (1, int, 1),
        (1, float, 1.0),
        (True, bool, True),
        (None, int | None, None),
        ("a", Literal["a", "b"], "a"),
        ("250ms", Duration, 0.25),
        ("64KiB", Size, 65536),
        ("100/s", Rate, 100.0),
        ("100ms..10s", Backoff, (0.1, 10.0)),
        ("1s", Backoff, (1.0, 1.0)),
        ("auto", Duration | Literal["auto"], "auto"),
        (None, Annotated[Duration | None, Meta(description="x")], None),
        (["a"], str | list[str], ["a"]),
        ("a", str | list[str], "a"),
        (False, bool | list[str], False),
        ([1, 2], tuple[int, ...], (1, 2)),
        (["a", 2], tuple[str, int], ("a", 2)),
        ({"a": 1}, dict[str, int], {"a": 1}),
        ({"a": [1]}, Mapping[str, list[float]], {"a": [1.0]}),
        ({"a": object}, dict[str, Any], {"a": object}),
        ("x", str | Callable[[Any], Any], "x"),
        (INVALID, int, INVALID),
    ],
)
def test_a_right_value_is_taken_as_declared(value: Any, annotation: Any, taken: Any) -> None:
    found, problems = checked(value, annotation)

    assert (found, problems) == (taken, [])
    assert type(found) is type(taken)


@pytest.mark.parametrize(
    ("value", "annotation", "problems"),
    [
        (1, str, [((), "expected text, got a whole number")]),
        (True, int, [((), "expected a whole number, got true or false")]),
        (1.5, int, [((), "expected a whole number, got a number")]),
        ("1", int, [((), "expected a whole number, got text")]),
        (None, int, [((), "expected a whole number, got nothing")]),
        (5, Duration, [((), "expected a duration with a unit, like 250ms, got a whole number")]),
        ("5", Size, [((), "expected a size with a unit (B, KB, MB, GB, KiB, MiB, GiB), like 64KiB")]),
        ("atuo", Literal["auto", "none"], [((), "expected one of auto, none; did you mean 'auto'?")]),
        (7, Annotated[int, Meta(le=5)], [((), "expected at most 5")]),
        (7, Annotated[int, Meta(lt=7)], [((), "expected less than 7")]),
        (7, Annotated[int, Meta(multiple_of=2)], [((), "expected a multiple of 2")]),
        ("ab", Annotated[str, Meta(pattern="^b")], [((), "expected text that matches ^b")]),
        ("", Annotated[str, Meta(min_length=1)], [((), "expected something, got nothing")]),
        ([1], Annotated[list[int], Meta(min_length=2)], [((), "expected at least 2 values")]),
        ("5s", Annotated[Duration, Meta(le=2)], [((), "expected at most 2s")]),
        ("5KiB", Annotated[Size, Meta(ge=8192)], [((), "expected at least 8KiB")]),
        ([1, "b", "c"], list[int], [((i,), "expected a whole number, got text") for i in (1, 2)]),
        ({"a": {"b": "c"}}, dict[str, dict[str, int]], [(("a", "b"), "expected a whole number, got text")]),
        ([1], tuple[int, int], [((), "expected 2 values, got 1")]),
        ("x", Callable[[Any], Any], [((), "expected what only Python can give, got text")]),
        ({"attempts": 0}, Retry, [(("attempts",), "expected at least 1")]),
        ({"dedline": "1s"}, Retry, [(("dedline",), "unknown key 'dedline'; did you mean 'deadline'?")]),
        ({}, Restart, [((), "missing key 'attempts', a whole number")]),
        ("twice", Retry | None, [((), "expected a mapping of attempts, backoff, deadline, on, got text")]),
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(
    value: Any, annotation: Any, problems: list[tuple[Path, str]]
) -> None:
    assert checked(value, annotation) == (INVALID, problems)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (0.2, Duration),
        (5, Duration),
        (65536, Size),
        ((0.1, 10), Backoff),
        (len, str | Callable[[Any], Any]),
        (int, type[Any]),
    ],
)
def test_python_gives_numbers_and_live_objects(value: Any, annotation: Any) -> None:
    assert checked(value, annotation, python=True) == (value, [])


@pytest.mark.parametrize(
    ("value", "annotation", "problem"),
    [
        (-1, Duration, "expected a number that is finite and not negative"),
        (float("inf"), Duration, "expected a number that is finite and not negative"),
        ((1, -1), Backoff, "expected a number that is finite and not negative"),
        (True, Duration, "expected a duration with a unit, like 250ms, got true or false"),
        ("5", Duration, "expected a duration with a unit (us, ms, s, m, h, d), like 250ms or 1.5s"),
        (3, Callable[[Any], Any], "expected what only Python can give, got a whole number"),
    ],
)
def test_python_is_held_to_the_rest(value: Any, annotation: Any, problem: str) -> None:
    assert checked(value, annotation, python=True) == (INVALID, [((), problem)])


def test_keys_say_where_they_belong_and_what_they_hold() -> None:
    keys = {key.name: key for key in keys_of(kinds.Adaptive)}

    assert {name for name, key in keys.items() if key.engine} == {"name", "on_failure", "when", "channel"}
    assert {"by", "max_keys", "order_by", "max_bytes", "target_latency"} <= {
        n for n, key in keys.items() if not key.engine
    }
    assert (keys["by"].expression, keys["by"].type) == (True, "an expression")
    assert (keys["target_latency"].required, keys["target_latency"].unit) == (True, "duration")
    assert (keys["max_size"].required, keys["max_size"].default) == (False, 10_000)
    assert keys["when"].description.startswith("Expression")


def test_a_function_is_named_as_such() -> None:
    (key,) = (key for key in keys_of(kinds.Call) if key.name == "function")

    assert (key.function, key.type) == (True, "a function, as module:name")
