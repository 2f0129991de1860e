"""The frontier against a model that counts the shares of every single number."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.settle.frontier import Frontier

SMALL = some.integers(0, 30)


class Model:
    """What a frontier means, number by number."""

    def __init__(self, start: int) -> None:
        self.start = self.next = start
        self.owed: dict[int, int] = {}

    def read(self, count: int) -> int:
        first = self.next
        for number in range(first, first + count):
            self.owed[number] = 1
        self.next += count
        return first

    @property
    def number(self) -> int:
        return next((n for n in range(self.start, self.next) if self.owed[n]), self.next)

    def may(self, low: int, high: int) -> bool:
        return self.number <= low < high <= self.next and all(self.owed[n] for n in range(low, high))

    def add(self, low: int, high: int, shares: int) -> set[int]:
        for number in range(low, high):
            self.owed[number] += shares
        return {number for number in range(low, high) if not self.owed[number]}

    @property
    def islands(self) -> set[int]:
        return {n for n in range(self.number, self.next) if not self.owed[n]}


@settings(max_examples=300, deadline=None)
@given(
    some.integers(0, 3),
    some.lists(
        some.one_of(
            some.tuples(some.just("read"), some.integers(0, 7), some.just(0), some.just(0)),
            some.tuples(some.sampled_from(["owe", "settle", "settle", "settle"]), SMALL, SMALL, some.integers(1, 2)),
        ),
        max_size=60,
    ),
)
def test_it_says_what_a_count_of_every_number_says(start: int, steps: list[tuple[str, int, int, int]]) -> None:
    frontier, model = Frontier(start), Model(start)
    for step, low, length, shares in steps:
        if step == "read":
            assert frontier.read(low) == model.read(low)
        else:
            low, high = low + start, low + start + length
            if not model.may(low, high):
                with pytest.raises(ValueError):
                    (frontier.settle if step == "settle" else frontier.owe)(low, high)
            elif step == "owe":
                frontier.owe(low, high, shares)
                model.add(low, high, shares)
            else:
                done = frontier.settle(low, high)
                assert {n for first, last in done for n in range(first, last)} == model.add(low, high, -1)
                assert all(one[1] < other[0] for one, other in itertools.pairwise(done)), "spans that touch"
        assert frontier.number == model.number
        assert frontier.next == model.next
        assert frontier.unsettled == model.next - model.number
        islands = frontier.islands
        assert {n for first, last in islands for n in range(first, last)} == model.islands
        assert all(one[1] < other[0] for one, other in itertools.pairwise(islands)), "islands that touch"
        assert all(frontier.settled(n) == (not model.owed[n]) for n in range(start, model.next))


def test_equal_neighbours_are_one_run_however_many_records_there_are() -> None:
    frontier = Frontier()
    for first in range(0, 1_000_000, 500):
        frontier.read(500)
        if first >= 2000:
            frontier.settle(first - 2000, first - 1500)

    assert frontier.number == 1_000_000 - 2000
    assert frontier.unsettled == 2000
    assert frontier.islands == []


def test_a_number_beyond_what_was_read_is_not_settled() -> None:
    frontier = Frontier(5)
    frontier.read(1)
    frontier.settle(5, 6)

    assert frontier.settled(4) and frontier.settled(5)
    assert not frontier.settled(6)
    with pytest.raises(ValueError, match="is not within"):
        frontier.settle(6, 7)
    with pytest.raises(ValueError, match="is not within"):
        frontier.owe(5, 6)


def test_a_number_with_two_shares_needs_two_ends() -> None:
    frontier = Frontier()
    frontier.read(3)
    frontier.owe(1, 2)

    assert frontier.settle(0, 3) == [(0, 1), (2, 3)]
    assert (frontier.number, frontier.islands) == (1, [(2, 3)])
    with pytest.raises(ValueError, match="settled before"):
        frontier.settle(1, 3)
    assert frontier.settle(1, 2) == [(1, 2)]
    assert (frontier.number, frontier.islands) == (3, [])


def test_a_refused_settling_changes_nothing() -> None:
    frontier = Frontier()
    frontier.read(10)
    frontier.settle(4, 5)
    before = (frontier.number, frontier.islands)
    with pytest.raises(ValueError):
        frontier.settle(2, 8)

    assert (frontier.number, frontier.islands) == before
    assert frontier.settle(0, 4) == [(0, 4)]
    assert frontier.number == 5
