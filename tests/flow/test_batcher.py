"""The actor of a batcher, under a clock that the test moves: what goes into a batch, when it is cut, and why."""

from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import anyio
import anyio.abc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch
from pipeline.control.fixed import FixedLaw
from pipeline.control.law import Change, Law, Observation
from pipeline.flow.batcher import BatcherActor, Leg
from pipeline.stage import Batcher
from pipeline.testing import ManualClock, settle
from pipeline.watch.metrics import StageMetrics
from tests.flow.driving import Cuts, channel_of, outlet_to, read, run_of, within

pytestmark = pytest.mark.anyio

FOREVER = float("inf")


class Scripted(FixedLaw):
    """A fixed law whose limit, permits and expectations a test may change, and that remembers what it saw."""

    def __init__(self, size: int = 10, linger: float = 1.0, max_bytes: int | None = None, permits: int | None = 100):
        super().__init__(size, linger, max_bytes)
        self.permits = permits
        self.expecting: Callable[[float], bool] = lambda remaining: True
        self.arrivals: list[tuple[int, float]] = []
        self.seen: list[Observation] = []

    def expects(self, remaining: float) -> bool:
        return self.expecting(remaining)

    def arrived(self, count: int, now: float) -> None:
        self.arrivals.append((count, now))

    def observe(self, seen: Observation) -> list[Change]:
        self.seen.append(seen)
        return [Change(self.limit, self.limit, "fit")]


class Batching:
    """A batcher between a channel that the test fills and stages behind that take ``service`` seconds a batch."""

    def __init__(
        self,
        law: Law,
        service: float = 0.0,
        *,
        by: Callable[[Any], Any] | None = None,
        order_by: Callable[[Any], Any] | None = None,
        max_keys: int = 1000,
        on_failure: str = "stop",
    ) -> None:
        self.clock = ManualClock()
        self.law = law
        self.service = service
        self.run = run_of(Cuts(make=lambda: law, name="cuts"), clock=self.clock, on_failure=on_failure)
        self.inbox = channel_of(self.run)
        self.outbox = channel_of(self.run)
        spec = Cuts(make=lambda: law, name="cuts", max_keys=max_keys)
        outlet = outlet_to(self.run, self.outbox)
        self.actor = BatcherActor(self.run, "cuts", spec, law, self.inbox, outlet, [], key=by, order=order_by)
        self.sent: list[tuple[float, Batch]] = []
        self.in_flight = self.most_in_flight = 0
        self.smooth = True
        self.given: deque[Batch] = deque()
        """What is still to be sent: a batcher that is full keeps who sends waiting."""
        self.came = anyio.Event()
        self.feeding = anyio.CancelScope()

    async def put(self, *records: Any, size: int | None = None) -> None:
        batch = read(self.run, *records)
        batch.size = len(records) if size is None else size
        self.given.append(batch)
        self.came.set()
        await settle()

    async def feed(self) -> None:
        with self.feeding:
            while True:
                await self.came.wait()
                self.came = anyio.Event()
                while self.given:
                    await self.inbox.send(self.given[0])
                    self.given.popleft()

    async def consume(self, group: anyio.abc.TaskGroup) -> None:
        while (batch := await self.outbox.receive()) is not None:
            self.sent.append((self.clock.now(), batch))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            group.start_soon(self.serve, batch)

    async def serve(self, batch: Batch) -> None:
        await self.clock.sleep(self.service)
        self.run.ledger.settle(batch)
        self.in_flight -= 1
        assert batch.ticket is not None
        batch.ticket.smooth = self.smooth
        batch.ticket.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.actor.run)
            group.start_soon(self.consume, group)
            group.start_soon(self.feed)
            yield
            await settle()
            while self.given and not self.inbox.abandoned:
                await self.clock.advance(self.service or 1.0)
            self.feeding.cancel()
            if not self.inbox.closed:
                self.inbox.close()
            while self.actor.bytes or self.in_flight or not self.outbox.ended:
                await self.clock.advance(self.service or 1.0)

    @property
    def cut(self) -> list[tuple[float, str, list[Any]]]:
        """When each batch was sent, why, and its records."""
        return [(at, batch.trigger, batch.records) for at, batch in self.sent]


# --- triggers ---------------------------------------------------------------------------------------------------------


async def test_a_batch_is_cut_when_it_has_its_size() -> None:
    batching = Batching(Scripted(size=3))
    async with batching.running():
        await batching.put(*range(7))
        await settle()
        assert batching.cut == [(0, "size", [0, 1, 2]), (0, "size", [3, 4, 5])]
    assert batching.cut[2] == (0, "end", [6])


async def test_a_batch_is_cut_before_it_would_exceed_its_bytes() -> None:
    batching = Batching(Scripted(size=100, max_bytes=10))
    async with batching.running():
        await batching.put(1, 2, size=8)
        await batching.put(3, 4, size=8)
        await batching.put(5, size=50)
        await batching.put(6, size=4)
        await settle()
        assert batching.cut == [(0, "bytes", [1, 2]), (0, "bytes", [3, 4]), (0, "bytes", [5])]
    assert batching.cut[3:] == [(0, "end", [6])]


async def test_a_timer_runs_from_the_first_record_whether_or_not_another_arrives() -> None:
    batching = Batching(Scripted(size=10, linger=2))
    async with batching.running():
        await batching.clock.advance(5)
        await batching.put(1)
        await batching.clock.advance(1.5)
        await batching.put(2)
        await batching.clock.advance(0.4)
        assert batching.cut == []
        await batching.clock.advance(0.1)
        assert batching.cut == [(7, "linger", [1, 2])]
        await batching.clock.advance(10)
        assert len(batching.cut) == 1


async def test_a_batch_is_cut_at_once_when_nobody_else_is_expected_in_time() -> None:
    law = Scripted(size=10, linger=5)
    law.expecting = lambda remaining: remaining > 4
    batching = Batching(law)
    async with batching.running():
        await batching.put(1)
        await batching.clock.advance(0.5)
        assert batching.cut == []
        await batching.clock.advance(0.6)
        await batching.put(2)
        await settle()
        assert batching.cut == [(1.1, "idle", [1, 2])]


async def test_what_waits_at_the_door_is_taken_before_a_batch_is_cut_as_idle() -> None:
    law = Scripted(size=10)
    law.expecting = lambda remaining: False
    batching = Batching(law)
    await batching.put(1)
    await batching.put(2)
    async with batching.running():
        await settle()
        assert batching.cut == [(0, "idle", [1, 2])]


@pytest.mark.parametrize(("ask", "trigger"), [("press", "pressure"), ("flush", "flush")])
async def test_what_is_gathered_is_sent_when_somebody_asks_and_only_that(ask: str, trigger: str) -> None:
    batching = Batching(Scripted(size=10, linger=FOREVER))
    async with batching.running():
        await batching.put(1)
        await settle()
        batching.run.waiting_for_room = 1
        getattr(batching.actor, ask)()
        await settle()
        assert batching.cut == [(0, trigger, [1])]
        batching.run.waiting_for_room = 0
        await batching.put(2)
        await batching.clock.advance(100)
        assert len(batching.cut) == 1


async def test_pressure_lasts_until_no_source_waits_for_room_also_for_what_is_still_on_its_way() -> None:
    batching = Batching(Scripted(size=10, linger=FOREVER))
    async with batching.running():
        batching.run.waiting_for_room = 1
        batching.actor.press()
        await settle()
        for number in (1, 2):
            await batching.put(number)
            await settle()
        assert batching.cut == [(0, "pressure", [1]), (0, "pressure", [2])]
        batching.run.waiting_for_room = 0
        await batching.put(3)
        await batching.clock.advance(100)
        assert len(batching.cut) == 2


async def test_one_key_too_many_cuts_the_oldest() -> None:
    batching = Batching(Scripted(size=10, linger=FOREVER), by=lambda record: record[0], max_keys=2)
    async with batching.running():
        await batching.put("a1")
        await batching.clock.advance(1)
        await batching.put("b1")
        await batching.clock.advance(1)
        await batching.put("a2")
        await batching.put("c1")
        await settle()
        assert batching.cut == [(2, "key", ["a1", "a2"])]
    assert sorted(batching.cut[1:]) == [(2, "end", ["b1"]), (2, "end", ["c1"])]


async def test_the_end_sends_the_last_batch_and_the_counters_know_every_reason() -> None:
    batching = Batching(Scripted(size=2, linger=FOREVER))
    async with batching.running():
        await batching.put(1, 2, 3)
    metrics = batching.run.metrics["cuts"]
    assert metrics.triggers == {"size": 1, "end": 1}
    assert (metrics.records_in, metrics.records_out, metrics.batches) == (3, 3, 2)
    assert batching.outbox.ended


# --- limits, permits, order -------------------------------------------------------------------------------------------


async def test_a_batch_keeps_the_limit_that_it_was_opened_with() -> None:
    law = Scripted(size=3, linger=FOREVER)
    batching = Batching(law)
    async with batching.running():
        await batching.put(1)
        await settle()
        law.limit = 5
        await batching.put(2, 3, 4)
        await settle()
        assert batching.cut == [(0, "size", [1, 2, 3])]
        await batching.put(5, 6, 7, 8)
        await settle()
        assert batching.cut[1:] == [(0, "size", [4, 5, 6, 7, 8])]


async def test_no_more_batches_are_in_flight_than_there_are_permits() -> None:
    batching = Batching(Scripted(size=1, permits=2), service=1)
    async with batching.running():
        await batching.put(*range(6))
        await settle()
        assert len(batching.sent) == 2
        await batching.clock.advance(1)
        assert len(batching.sent) == 4
    assert [at for at, _ in batching.sent] == [0, 0, 1, 1, 2, 2]
    assert batching.most_in_flight == 2


async def test_a_batch_that_is_late_for_want_of_a_permit_goes_whole_with_what_came_meanwhile() -> None:
    batching = Batching(Scripted(size=5, linger=1, permits=1), service=10)
    async with batching.running():
        await batching.put(0)
        await batching.clock.advance(1)
        assert batching.cut == [(1, "linger", [0])]
        await batching.put(1)
        await batching.clock.advance(4)
        await batching.put(2, 3)
        await batching.clock.advance(6)
        assert batching.cut[1:] == [(11, "linger", [1, 2, 3])]
        assert batching.run.metrics["cuts"].triggers == {"linger": 2}


async def test_a_full_batch_without_a_permit_takes_no_more_and_keeps_who_sends_waiting() -> None:
    batching = Batching(Scripted(size=2, permits=1), service=10)
    async with batching.running():
        for number in range(10):
            await batching.put(number)
        await settle()
        assert batching.cut == [(0, "size", [0, 1])]
        assert batching.actor.bytes == 2
        # The sender of the record that filled the batch waits, and all behind it.
        assert len(batching.inbox) == 0
        assert [batch.records for batch in batching.given] == [[3], [4], [5], [6], [7], [8], [9]]


async def test_a_free_permit_goes_to_the_key_with_the_least_time_left() -> None:
    batching = Batching(Scripted(size=10, linger=3, permits=1), service=5, by=lambda record: record[0])
    async with batching.running():
        await batching.put("x1")
        await batching.clock.advance(3)
        for record in ("a1", "b1", "c1"):
            await batching.put(record)
            await batching.clock.advance(0.5)
        await batching.clock.advance(20)
    assert [records for _, _, records in batching.cut] == [["x1"], ["a1"], ["b1"], ["c1"]]


async def test_records_are_sorted_within_a_batch_and_keep_their_origins() -> None:
    batching = Batching(Scripted(size=4), order_by=lambda record: -record)
    async with batching.running():
        await batching.put(3, 1, 4, 1, 5)
    assert [batch.records for _, batch in batching.sent] == [[4, 3, 1, 1], [5]]
    assert list(batching.sent[0][1].numbers) == [2, 0, 1, 3]
    assert batching.run.ledger.account.written == 5


async def test_a_record_that_cannot_be_sorted_fails_and_the_others_go_on() -> None:
    batching = Batching(Scripted(size=4), order_by=lambda record: record["n"], on_failure="skip")
    records = [{"n": 3}, {"n": None}, {}, {"n": 1}]
    async with batching.running():
        await batching.put(*records)
    assert [batch.records for _, batch in batching.sent] == [[{"n": 1}, {"n": 3}]]
    assert batching.run.ledger.account.skipped == 2
    assert batching.run.ledger.unsettled == 0


async def test_a_record_without_a_key_fails_and_under_stop_what_came_before_is_sent() -> None:
    batching = Batching(Scripted(size=10), by=lambda record: record["k"], on_failure="skip")
    async with batching.running():
        await batching.put({"k": 1}, {}, {"k": [2]})
    assert sorted(str(batch.records) for _, batch in batching.sent) == ["[{'k': 1}]", "[{'k': [2]}]"]
    assert (batching.run.ledger.account.skipped, batching.run.ledger.unsettled) == (1, 0)

    stopping = Batching(Scripted(size=10), by=lambda record: record["k"])
    async with stopping.running():
        await stopping.put({"k": 1})
        await settle()
        await stopping.put({})
        await settle()
        assert stopping.run.halt is not None
        assert "source[1]" in str(stopping.run.halt) or "source record 1" in str(stopping.run.halt)
        stopping.inbox.close()
    assert [batch.records for _, batch in stopping.sent] == [[{"k": 1}]]
    assert stopping.run.ledger.unsettled == 1


async def test_a_number_whose_children_go_to_several_keys_settles_with_the_last_of_them() -> None:
    batching = Batching(Scripted(size=4, linger=1, permits=1), service=5, by=lambda record: record[0])
    piece = read(batching.run, "x", "y")
    piece.explode([2, 2], ["a0", "b0", "a1", "b1"])
    async with batching.running():
        await batching.inbox.send(piece)
        await batching.clock.advance(6)
        assert [batch.records for _, batch in batching.sent] == [["a0", "a1"], ["b0", "b1"]]
        assert batching.run.ledger.account.written == 0
    assert batching.run.ledger.account.written == 2
    assert batching.run.ledger.unsettled == 0


async def test_a_law_learns_from_batches_that_went_smoothly_and_from_no_other() -> None:
    law = Scripted(size=2, permits=1)
    batching = Batching(law, service=3)
    async with batching.running():
        await batching.put(1, 2, 3, 4)
        await batching.clock.advance(4)
        batching.smooth = False
        await batching.put(5, 6)
        await batching.clock.advance(20)
    assert law.seen == [Observation(size=2, service=3, wait=0, full=True, permits=1, queued=False)]
    assert sum(count for count, _ in law.arrivals) == 6


async def test_permits_are_measured_where_the_law_leaves_them_open() -> None:
    batching = Batching(Scripted(permits=None))
    slow, quick = StageMetrics("slow", "processor", "x"), StageMetrics("quick", "sink", "x")
    slow.recent_seconds, quick.recent_seconds = 3.0, 1.5
    spec = batching.run.topology.stages["cuts"].spec
    assert isinstance(spec, Batcher)

    def permits(*paths: list[Leg]) -> int:
        outlet = outlet_to(batching.run, batching.outbox)
        return BatcherActor(batching.run, "cuts", spec, batching.law, batching.inbox, outlet, list(paths)).permits()

    assert permits() == 1
    assert permits([Leg([slow], 1), Leg([quick], 1)]) == 2
    assert permits([Leg([slow, quick], 1)]) == 1
    # Where several work at once, the next batch of each is at hand, too: nobody aims at a latency here.
    assert permits([Leg([quick], 1)], [Leg([slow], 4), Leg([quick], 1)]) == 3 + 4
    quick.recent_seconds = 0.0001
    assert permits([Leg([quick], 1)]) == 6


# --- the law of the whole ---------------------------------------------------------------------------------------------

STEPS = some.lists(
    some.one_of(
        some.tuples(some.just("put"), some.lists(some.integers(0, 3), min_size=1, max_size=7)),
        some.tuples(some.just("advance"), some.sampled_from([0.1, 0.5, 1.0, 2.5])),
        some.tuples(some.sampled_from(["press", "flush"]), some.none()),
    ),
    max_size=15,
)


@settings(max_examples=100, deadline=None)
@given(
    steps=STEPS,
    size=some.integers(1, 6),
    linger=some.sampled_from([0.0, 0.4, 1.5, FOREVER]),
    max_bytes=some.sampled_from([None, 3, 8]),
    permits=some.integers(1, 3),
    service=some.sampled_from([0.0, 0.7, 2.0]),
    keyed=some.booleans(),
    ordered=some.booleans(),
)
def test_every_record_is_sent_once_in_batches_within_their_bounds(
    steps: list[tuple[str, Any]],
    size: int,
    linger: float,
    max_bytes: int | None,
    permits: int,
    service: float,
    keyed: bool,
    ordered: bool,
) -> None:
    async def body() -> None:
        batching = Batching(
            Scripted(size, linger, max_bytes, permits),
            service,
            by=(lambda record: record[1]) if keyed else None,
            order_by=(lambda record: -record[0]) if ordered else None,
            max_keys=2,
        )
        total = 0
        async with batching.running():
            for step, argument in steps:
                if step == "put":
                    await batching.put(*[(total + index, key) for index, key in enumerate(argument)])
                    total += len(argument)
                elif step == "advance":
                    await batching.clock.advance(argument)
                    batching.run.waiting_for_room = 0
                else:
                    batching.run.waiting_for_room = 1
                    getattr(batching.actor, step)()
        batches = [batch.records for _, batch in batching.sent]
        check_batches(batches, total, size, max_bytes, keyed, ordered)
        assert batching.most_in_flight <= permits
        assert batching.run.ledger.account.written == total
        assert batching.run.ledger.unsettled == 0
        if service == 0.0:
            # With a permit at hand nothing waits longer than it may.
            assert all(at - batch.admitted <= linger + 1e-9 for at, batch in batching.sent)

    within(30, body)


def check_batches(
    batches: list[list[Any]], total: int, size: int, max_bytes: int | None, keyed: bool, ordered: bool
) -> None:
    assert sorted(record[0] for records in batches for record in records) == list(range(total))
    assert all(1 <= len(records) <= size for records in batches)
    if max_bytes is not None:
        assert all(len(records) <= max_bytes for records in batches)
    if keyed:
        assert all(len({key for _, key in records}) == 1 for records in batches)
    if ordered:
        assert all(one[0] > other[0] for records in batches for one, other in pairwise(records))
        batches = [records[::-1] for records in batches]
    for key in {record[1] for records in batches for record in records} if keyed else {None}:
        numbers = [record[0] for records in batches for record in records if key is None or record[1] == key]
        assert numbers == sorted(numbers)
