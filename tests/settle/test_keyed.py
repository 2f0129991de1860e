"""Keyed state: a record that comes again is judged as the first time, by changes of smaller numbers only."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.settle.cut import Change
from pipeline.settle.keyed import KeyedChanges
from pipeline.settle.ledger import Ledger

RECORDS = some.lists(some.tuples(some.sampled_from(["k", "l", 1, "1"]), some.booleans()), min_size=1, max_size=25)


class Run:
    """A stage that counts the records of each key, or forgets a key, and remembers what it was told."""

    def __init__(self, records: list[tuple[Any, bool]], start: int, saved: list[Change], settled: set[int]) -> None:
        self.records = records
        self.ledger = Ledger()
        self.ledger.start("source", start)
        self.pending: list[Change] = []
        self.state = KeyedChanges("stage", self.ledger, self.pending, saved)
        self.known = settled
        self.told: dict[int, Any] = {}

    def take(self, number: int) -> None:
        assert self.ledger.read("source", 1) == number
        if number in self.known:
            self.ledger.recall("source", number, number + 1)
            return
        key, forget = self.records[number]
        self.told[number] = self.state.get(key, "source", number)
        self.state.put(key, "source", number, None if forget else (self.told[number] or 0) + 1)

    def settle(self, number: int) -> None:
        if not self.ledger.settled("source", number):
            self.ledger.settle_spans([("source", number, number + 1)])


@settings(max_examples=200, deadline=None)
@given(RECORDS, some.data())
def test_after_a_crash_every_record_is_told_what_it_was_told_before(
    records: list[tuple[Any, bool]], data: some.DataObject
) -> None:
    count = len(records)
    whole = Run(records, 0, [], set())
    for number in range(count):
        whole.take(number)

    first = Run(records, 0, [], set())
    crash = data.draw(some.integers(0, count))
    for number in range(crash):
        first.take(number)
        for done in data.draw(some.lists(some.integers(0, number), max_size=3)):
            first.settle(done)
    frontier = first.ledger.frontiers["source"]
    saved = [change for change in first.pending if frontier.settled(change.number)]
    saved.sort(key=lambda change: change.number)
    islands = {n for low, high in frontier.islands for n in range(low, high)}

    again = Run(records, frontier.number, saved, islands)
    for number in range(frontier.number, count):
        again.take(number)
    for told in (first.told, again.told):
        assert told == {number: whole.told[number] for number in told}


def state_of(count: int) -> tuple[Ledger, list[Change], KeyedChanges]:
    ledger = Ledger()
    ledger.start("source", 0)
    ledger.read("source", count)
    pending: list[Change] = []
    return ledger, pending, KeyedChanges("stage", ledger, pending)


def test_a_record_does_not_see_what_later_ones_left() -> None:
    _, _, state = state_of(10)
    state.put("k", "source", 5, "later")

    assert state.get("k", "source", 5) is None
    assert state.get("k", "source", 6) == "later"
    state.put("k", "source", 3, "earlier")
    assert [state.get("k", "source", number) for number in (3, 4, 5, 6)] == [None, "earlier", "earlier", "later"]


def test_of_another_source_everything_counts() -> None:
    _, _, state = state_of(10)
    state.put("k", "other", 8, "x")
    assert state.get("k", "source", 0) == "x"


def test_a_record_that_comes_again_replaces_what_it_left() -> None:
    _, pending, state = state_of(3)
    state.put("k", "source", 1, "first")
    state.put("k", "source", 1, "second")
    assert state.get("k", "source", 2) == "second"
    assert [change.value for change in pending] == ["first", "second"]


def test_keys_that_json_tells_apart_are_apart() -> None:
    _, _, state = state_of(10)
    for number, key in enumerate([1, "1", 1.5, [1], True]):
        state.put(key, "source", number, number)
    assert [state.get(key, "source", 9) for key in (1, "1", 1.5, [1], True)] == [0, 1, 2, 3, 4]


def test_a_key_keeps_earlier_values_only_until_the_frontier_has_passed_the_later_one() -> None:
    ledger, _, state = state_of(1000)
    for number in range(1000):
        state.put("k", "source", number, number)
        ledger.settle_spans([("source", number, number + 1)])

    assert state.get("k", "source", 1000) == 999
    assert len(vars(state)["_values"]["k"]) <= 2


def test_a_key_taken_out_is_forgotten_once_the_frontier_has_passed_that() -> None:
    ledger, _, state = state_of(3)
    state.put("k", "source", 0, 1)
    state.put("k", "source", 1, None)
    assert len(state) == 1
    assert state.get("k", "source", 1) == 1 and state.get("k", "source", 2) is None
    ledger.settle_spans([("source", 0, 2)])
    state.put("l", "source", 2, 1)
    assert len(state) == 1
    assert state.get("k", "source", 2) is None
