"""The books of a run: whatever happens to batches on their way, the account adds up."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch, Origin
from pipeline.settle.ledger import End, Ledger
from pipeline.testing import batch_of
from pipeline.watch.report import Account

COLUMNS = {
    End.FILTERED: "filtered",
    End.WRITTEN: "written",
    End.SKIPPED: "skipped",
    End.COLLECTED: "collected",
    End.DEAD_LETTERED: "dead_lettered",
}


class World:
    """Batches under way, the books, and a model that remembers the worst end of every number."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.batches: list[Batch] = []
        self.ends: dict[tuple[str, int], End] = {}
        for source in "ab":
            self.ledger.start(source, 0)

    def read(self, source: str, count: int) -> None:
        first = self.ledger.read(source, count)
        if count:
            self.batches.append(batch_of(*range(count), source=source, start=first))
        self.ends.update({(source, number): End.FILTERED for number in range(first, first + count)})

    def pick(self, which: int) -> Batch | None:
        return self.batches.pop(which % len(self.batches)) if self.batches else None

    def split(self, which: int, at: int) -> None:
        batch = self.pick(which)
        if batch is not None:
            head, tail, shared = batch.split(min(at, len(batch)))
            self.ledger.share(shared)
            self.batches += [part for part in (head, tail) if part.spans]

    def fan_out(self, which: int, ways: int) -> None:
        batch = self.pick(which)
        if batch is not None:
            self.ledger.share_spans(batch.spans, ways - 1)
            self.batches += [batch.branch(f"branch{way}", list(batch.records)) for way in range(ways)]

    def explode(self, which: int, count: int) -> None:
        for batch in [self.batches[which % len(self.batches)]] if self.batches else []:
            batch.explode([count] * len(batch), list(batch.records) * count)

    def keep(self, which: int, bits: int) -> None:
        for batch in [self.batches[which % len(self.batches)]] if self.batches else []:
            batch.keep([bits >> (index % 8) & 1 for index in range(len(batch))])

    def fail(self, which: int, index: int, end: End) -> None:
        for batch in [self.batches[which % len(self.batches)]] if self.batches else []:
            if batch.records:
                origin = batch.origin(index % len(batch))
                self.ledger.mark(origin, end)
                self.worst(origin, end)
                batch.keep([other != index % len(batch) for other in range(len(batch))])

    def worst(self, origin: Origin, end: End) -> None:
        self.ends[origin[:2]] = max(self.ends[origin[:2]], end)

    def settle(self, which: int) -> None:
        batch = self.pick(which)
        if batch is not None:
            for origin in batch.origins():
                self.worst(origin, End.WRITTEN)
            self.ledger.settle(batch)

    def check(self) -> None:
        settled = {number for number in self.ends if self.ledger.settled(*number)}
        under_way = {
            (source, number)
            for batch in self.batches
            for source, low, high in batch.spans
            for number in range(low, high)
        }
        assert settled == set(self.ends) - under_way
        expected = Counter(COLUMNS[self.ends[number]] for number in settled)
        found = self.ledger.account.as_dict()
        assert found["read"] == len(self.ends)
        assert found["unsettled"] == len(under_way)
        assert {name: found[name] for name in COLUMNS.values()} == {name: expected[name] for name in COLUMNS.values()}


SOME = some.integers(0, 9)
STEPS = some.one_of(
    some.tuples(some.just("read"), some.sampled_from("ab"), some.integers(0, 6)),
    some.tuples(some.just("split"), SOME, SOME),
    some.tuples(some.just("fan_out"), SOME, some.integers(1, 3)),
    some.tuples(some.just("explode"), SOME, some.integers(0, 3)),
    some.tuples(some.just("keep"), SOME, some.integers(0, 255)),
    some.tuples(some.just("fail"), SOME, SOME, some.sampled_from([End.SKIPPED, End.COLLECTED, End.DEAD_LETTERED])),
    some.tuples(some.just("settle"), SOME),
)


@settings(max_examples=150, deadline=None)
@given(some.lists(STEPS, max_size=40))
def test_the_account_adds_up_and_a_record_with_several_ends_counts_by_its_worst(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for name, *arguments in [("read", "a", 5), ("read", "b", 3), *steps]:
        getattr(world, name)(*arguments)
        world.check()
    while world.batches:
        world.settle(0)
    world.check()
    account = world.ledger.account
    assert account.unsettled == 0 == world.ledger.unsettled
    assert account.read == sum((account.written, account.filtered, account.skipped, account.collected)) + (
        account.dead_lettered
    )


def started(count: int) -> Ledger:
    ledger = Ledger()
    ledger.start("source", 0)
    ledger.read("source", count)
    return ledger


def test_what_the_last_checkpoint_counted_is_not_counted_again() -> None:
    ledger = started(10)
    ledger.recall("source", 2, 5)

    assert ledger.account == Account(read=7)
    assert ledger.settled("source", 4) and not ledger.settled("source", 5)
    with pytest.raises(ValueError):
        ledger.recall("source", 4, 6)


def test_the_riders_of_a_group_settle_with_the_one_that_stands_for_it_and_end_alike() -> None:
    ledger = started(4)
    ledger.ride(("source", 3), batch_of("a", "b", "c"))
    ledger.settle(batch_of("d", start=3))

    assert ledger.account == Account(read=4, written=4)
    assert ledger.unsettled == 0


def test_the_riders_of_a_lead_that_failed_end_as_it_did() -> None:
    ledger = started(4)
    ledger.ride(("source", 3), batch_of("a", "b", "c"))
    ledger.mark(Origin("source", 3, "0"), End.DEAD_LETTERED)
    ledger.settle_spans([("source", 3, 4)])

    assert ledger.account == Account(read=4, dead_lettered=4)


def test_the_riders_of_a_lead_that_was_filtered_are_filtered() -> None:
    ledger = started(4)
    riders = batch_of("a", "b", "c")
    ledger.ride(("source", 3), riders)
    ledger.settle_spans([("source", 3, 4)])

    assert ledger.account == Account(read=4, filtered=4)


def test_riders_wait_for_the_last_share_of_their_lead() -> None:
    ledger = started(2)
    ledger.ride(("source", 1), batch_of("a"))
    ledger.share([("source", 1)])
    ledger.settle(batch_of("b", start=1))
    assert ledger.account.settled == 0
    ledger.settle(batch_of("b", start=1))
    assert ledger.account == Account(read=2, written=2)


def test_whoever_waits_is_told_of_every_settling() -> None:
    told: list[int] = []
    ledger = Ledger(lambda: told.append(ledger.unsettled))
    ledger.start("source", 0)
    ledger.read("source", 3)
    ledger.settle(batch_of("a"))
    ledger.settle_spans([("source", 1, 3)])
    assert told == [2, 0]
    ledger.wake()
    assert told == [2, 0, 0]


def test_a_settling_too_many_is_an_error_and_not_a_wrong_account() -> None:
    ledger = started(2)
    ledger.settle(batch_of("a"))
    with pytest.raises(ValueError):
        ledger.settle(batch_of("a"))
    assert ledger.account == Account(read=2, written=1)
