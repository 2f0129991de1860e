"""Spans against sets of numbers."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as some

from pipeline.spans import Held, Spans, runs

NUMBERS = some.integers(0, 40)
RANGES = some.lists(some.tuples(NUMBERS, some.integers(0, 8)), max_size=20)


def members(spans: list[tuple[int, int]]) -> set[int]:
    return {number for low, high in spans for number in range(low, high)}


@given(some.lists(NUMBERS).map(sorted))
def test_runs_are_the_numbers_in_as_few_spans_as_can_be(numbers: list[int]) -> None:
    spans = runs(numbers)

    assert members(spans) == set(numbers)
    assert all(low < high for low, high in spans)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))


def test_runs_of_a_range_are_one_span_or_none() -> None:
    assert runs(range(3, 9)) == [(3, 9)]
    assert runs(range(3, 3)) == []
    assert runs(range(0, 6, 2)) == [(0, 1), (2, 3), (4, 5)]


@given(RANGES, some.integers(0, 50), NUMBERS)
def test_spans_are_the_set_of_what_was_added_and_not_pruned(
    added: list[tuple[int, int]], below: int, asked: int
) -> None:
    spans = Spans()
    expected: set[int] = set()
    for low, length in added:
        spans.add(low, low + length)
        expected |= set(range(low, low + length))
        assert members(list(spans)) == expected
        assert all(one[1] < other[0] for one, other in zip(list(spans), list(spans)[1:], strict=False))
    assert (asked in spans) == (asked in expected)
    assert spans.count == len(expected)
    assert spans.high == max(expected, default=-1) + 1
    end = spans.end_of_run(asked)
    assert set(range(asked, end)) <= expected and end not in expected
    spans.prune(below)
    assert members(list(spans)) == {number for number in expected if number >= below}
    assert bool(spans) == any(number >= below for number in expected)


ORIGINS = some.lists(
    some.tuples(some.sampled_from(["a", "b"]), some.integers(0, 12), some.sampled_from(["", "", "0", "1.0", "@x"])),
    max_size=25,
)


def held_of(origins: list[tuple[str, int, str]]) -> Held:
    held = Held()
    for source, number, child in origins:
        held.add(source, [number], [child])
    return held


@given(ORIGINS, ORIGINS, some.integers(0, 14))
def test_what_is_held_survives_json_merging_and_pruning_as_a_set_of_origins(
    some_origins: list[tuple[str, int, str]], others: list[tuple[str, int, str]], below: int
) -> None:
    held = Held.decode(json.loads(json.dumps(held_of(some_origins).encode())))
    held.merge(held_of(others))
    expected = set(some_origins) | set(others)
    every = {(source, number, child) for source in "ab" for number in range(13) for child in ("", "0", "1.0", "@x")}
    assert {origin for origin in every if origin in held} == expected
    for source in "ab":
        for number in range(13):
            assert held.holds_any(source, number) == any(each[:2] == (source, number) for each in expected)
        assert members(list(held.numbers(source))) == {n for s, n, child in expected if s == source and not child}

    held.prune("a", below)
    left = {each for each in expected if each[0] != "a" or each[1] >= below}
    assert {origin for origin in every if origin in held} == left
    assert bool(held) == bool(left)


def test_whole_numbers_are_added_in_one_go() -> None:
    held = Held()
    held.add("a", range(5, 10))

    assert ("a", 9, "") in held and ("a", 9, "0") not in held
    assert list(held.numbers("a")) == [(5, 10)]


def test_nothing_decodes_to_nothing() -> None:
    assert not Held.decode(None) and not Held.decode({})
