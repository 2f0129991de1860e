"""Loops of expressions: quick where records are alike, and right where they are not."""

import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.expression import (
    EvaluationError,
    Expression,
    Rebuilt,
    compile_assignments,
    compile_expression,
    compile_predicate,
)


class Http(msgspec.Struct, gc=False):
    ms: Any
    status: Any = 200


class Other(msgspec.Struct):
    ms: Any


class Line(msgspec.Struct, gc=False):
    level: Any = "info"
    n: Any = 1
    http: Http | None = None


class Longer(Line, gc=False):
    more: Any = None


class Wide(msgspec.Struct, gc=False):
    level: Any
    n: Any
    http: Any
    slow: Any


class OwnDict(dict[str, Any]):
    pass


TEXTS = ("level != 'debug'", "http.ms > 200", "n * 60", "n % 7", "n * n + 1", "int(n) // 60", "coalesce(http.ms, more)")
MANY = 200


def line(**fields: Any) -> dict[str, Any]:
    return {"level": "info", "n": 1, "http": {"ms": 300, "status": 200}, **fields}


def looped(expression: Expression, records: Iterable[Any]) -> tuple[list[Any], str]:
    """Return what the loop gives, and how it fails."""
    assert expression.loop is not None
    return ended(lambda append: expression.loop and expression.loop(records, append))


def called(expression: Expression, records: Iterable[Any]) -> tuple[list[Any], str]:
    """Return what the calls give, and how the first that fails does."""

    def run(append: Callable[[Any], None]) -> None:
        for record in records:
            append(expression.function(record))

    return ended(run)


def ended(run: Callable[[Callable[[Any], None]], object]) -> tuple[list[Any], str]:
    values: list[Any] = []
    try:
        run(values.append)
    except EvaluationError as error:
        return values, f"{error} {error.expression} {error.fields}"
    return values, ""


def frames(run: Callable[[], object]) -> int:
    """Return how many functions written in Python are called."""
    seen: list[str] = []

    def count(frame: FrameType, happened: str, value: Any) -> None:
        if happened == "call":
            seen.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return len(seen)


def widened(kind: type[Any]) -> Rebuilt:
    return Rebuilt(Wide, ["level", "n", "http", 0])


def widening(values: Callable[..., tuple[Any, ...]]) -> Callable[..., Any]:
    def widen(record: Line) -> Wide:
        return Wide(record.level, record.n, record.http, *values(record))

    return widen


SLOW = {"slow": "http.ms > 200"}
VALUES = st.one_of(st.none(), st.integers(-(10**6), 10**6), st.floats(), st.text(max_size=3), st.booleans())
HTTPS = st.one_of(
    st.none(), VALUES.map(Http), VALUES.map(Other), VALUES.map(lambda ms: {"ms": ms}), st.just({}), VALUES
)
DICTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"level": VALUES, "n": VALUES, "http": HTTPS, "more": VALUES}
)
RECORDS: st.SearchStrategy[Any] = st.one_of(
    st.builds(Line, VALUES, VALUES, HTTPS),
    st.builds(Longer, VALUES, VALUES, HTTPS, VALUES),
    DICTS,
    DICTS.map(OwnDict),
    VALUES,
)


@given(st.sampled_from(TEXTS), st.lists(RECORDS, max_size=30))
def test_a_loop_over_records_of_any_sort_gives_what_calls_give(text: str, records: list[Any]) -> None:
    for expression in (compile_expression(text), compile_predicate(text)):
        assert repr(looped(expression, records)) == repr(called(expression, records))


@given(st.lists(st.builds(Line, VALUES, VALUES, HTTPS) | st.builds(Longer, VALUES, VALUES, HTTPS), max_size=30))
def test_typed_records_are_rebuilt_by_a_loop_as_by_calls(records: list[Any]) -> None:
    assign = compile_assignments(SLOW, rebuild=widening, rebuilt=widened)
    assert repr(looped(assign, records)) == repr(called(assign, records))


@pytest.mark.parametrize("record", [line(), Line(http=Http(300))], ids=["dict", "typed"])
def test_records_that_are_alike_are_taken_without_a_call_for_each(record: Any) -> None:
    for expression in (
        compile_predicate("level != 'debug' and http.ms > 200 and n % 2 == 1"),
        compile_assignments({"slow": "http.status // 100 * 2"}, rebuild=widening, rebuilt=widened),
    ):
        looped(expression, [record])
        assert frames(partial(looped, expression, [record] * MANY)) < MANY / 10


@pytest.mark.parametrize("position", [0, 1, MANY - 1])
@pytest.mark.parametrize("odd", [{"level": "debug"}, OwnDict(line()), Line(), Longer(http=Http(1)), Other(3)])
def test_a_record_that_is_not_like_the_others_is_taken_in_its_place(position: int, odd: Any) -> None:
    predicate = compile_predicate("level != 'debug' and coalesce(http.ms, 0) > 200")
    for usual in (line(), Line(http=Http(300))):
        records: list[Any] = [usual] * MANY
        records[position] = odd
        values, failure = looped(predicate, records)
        assert not failure
        assert [index for index, value in enumerate(values) if not value] == [position] * (not predicate.function(odd))
        assert len(values) == MANY


def test_a_field_that_is_missing_everywhere_is_none_everywhere() -> None:
    assert looped(compile_expression("more"), [line()] * MANY) == ([None] * MANY, "")
    assert looped(compile_expression("http.more"), [Line(http=Http(1))] * MANY) == ([None] * MANY, "")


@pytest.mark.parametrize("usual", [line(), Line(http=Http(300))], ids=["dict", "typed"])
@pytest.mark.parametrize("behind", [0, 3, MANY])
def test_a_loop_stops_at_the_record_that_fails_and_says_what_a_call_says(usual: Any, behind: int) -> None:
    predicate = compile_predicate("http.ms > 200")
    bad = msgspec.structs.replace(usual, http=Http(None)) if isinstance(usual, Line) else line(http={"ms": None})
    values, failure = looped(predicate, [usual] * behind + [bad, usual])
    assert values == [True] * behind
    assert failure == called(predicate, [bad])[1]
    assert failure.startswith("field 'http.ms': can't compare None with int (http.ms > 200)")


def test_nothing_is_assigned_by_a_loop_to_the_record_that_fails() -> None:
    assign = compile_assignments({"n": "n + 1", "x": "http.ms + 1"})
    records = [line(), line(http={"ms": "text"}), line()]
    values, failure = looped(assign, records)
    assert values == [line(n=2, x=301)]
    assert values[0] is records[0]
    assert "setting 'x'" in failure
    assert [record["n"] for record in records] == [2, 1, 1]


def test_a_value_that_raises_stop_iteration_fails_its_record_and_does_not_end_the_loop_unseen() -> None:
    class Stopping:
        def __gt__(self, other: object) -> bool:
            raise StopIteration

    for bad in (line(http={"ms": Stopping()}), Line(http=Http(Stopping()))):
        values, failure = looped(compile_predicate("http.ms > 200"), [line(), bad, line()])
        assert values == [True]
        assert "StopIteration" in failure


def test_what_is_no_exception_of_the_record_leaves_the_loop_as_it_is() -> None:
    class Interrupting:
        def __gt__(self, other: object) -> bool:
            raise KeyboardInterrupt

    loop = compile_predicate("n > 1").loop
    values: list[Any] = []
    assert loop is not None
    with pytest.raises(KeyboardInterrupt):
        loop([line(n=2), line(n=Interrupting())], values.append)
    assert values == [True]


def test_reading_a_field_adds_none_to_a_dict_that_makes_what_is_missing() -> None:
    made: defaultdict[str, int] = defaultdict(int)
    assert looped(compile_expression("http.ms"), [line(http=made), made]) == ([None, None], "")
    assert not made


def test_values_go_to_whatever_takes_them() -> None:
    values: deque[Any] = deque(maxlen=2)
    loop = compile_expression("10 / n").loop
    assert loop is not None
    with pytest.raises(EvaluationError, match="division by zero"):
        loop([line(n=n) for n in (1, 2, 5, 0, 10)], values.append)
    assert list(values) == [5.0, 2.0]


def test_a_field_is_read_whatever_its_name_is() -> None:
    odd = msgspec.defstruct("Odd", [("class", Any), ("größe", Any), ("_own", Any)])
    expression = compile_expression("[_record['class'], größe, _record['_own']]")
    assert looped(expression, [odd(1, 2, 3)] * 2) == ([[1, 2, 3]] * 2, "")


def test_a_field_is_read_by_its_very_letters() -> None:
    inner = msgspec.defstruct("Inner", [("max_T", int), ("max_t1", int), ("max_t2", int), ("fi", int), ("\ufb01", int)])
    outer = msgspec.defstruct("Outer", [("inner", inner), ("fi", int), ("\ufb01", int)])
    expression = compile_expression("[inner.max_T, inner['\ufb01'], _record['\ufb01'], inner.fi, fi]")
    record = outer(inner(1, 2, 3, 4, 5), 6, 7)
    assert looped(expression, [record] * 2) == ([[1, 5, 7, 4, 6]] * 2, "")


def test_a_type_whose_annotations_mean_nothing_is_read_all_the_same() -> None:
    lost = msgspec.defstruct("Lost", [("http", "NowhereToBeFound")])
    assert looped(compile_expression("http.ms"), [lost(Http(4))] * 2) == ([4, 4], "")


def test_more_types_than_are_learnt_are_read_all_the_same() -> None:
    expression = compile_expression("n + 1")
    kinds = [msgspec.defstruct(f"Kind{number}", [("n", int)]) for number in range(70)]
    assert [looped(expression, [kind(number)]) for number, kind in enumerate(kinds)] == [
        ([number + 1], "") for number in range(70)
    ]


def test_a_type_that_cannot_be_rebuilt_fails_its_records_one_by_one() -> None:
    def refuse(kind: type[Any]) -> Rebuilt:
        raise ValueError(kind.__name__)

    assign = compile_assignments(SLOW, rebuild=widening, rebuilt=refuse)
    assert looped(assign, [Line(http=Http(300))]) == ([Wide("info", 1, Http(300), True)], "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n * 60", 1 << 4090),
        ("n * 60", -(1 << 4095)),
        ("n * 2", (1 << 4095) - 1),
        ("n * 2", "ab"),
        ("n * 2.5", 2),
        ("n * n", 1 << 2049),
        ("n * n", 0.5),
        ("n * 60", True),
        ("n % 60", "%s"),
        ("n % n", 7),
        ("n % 0", 7),
        ("int(n)", float("nan")),
        ("int(n)", float("-inf")),
        ("int(n)", -7.9),
        ("int(n)", 1e300),
        ("int(n)", " 12 "),
        ("int(n)", None),
    ],
)
def test_arithmetic_is_bounded_and_fails_alike_in_a_loop(text: str, value: Any) -> None:
    expression = compile_expression(text)
    for record in (line(n=value), Line(n=value)):
        assert looped(expression, [record]) == called(expression, [record])
        values, failure = looped(expression, [record])
        assert failure or abs(values[0] if not isinstance(values[0], str) else 0) < 1 << 4096
