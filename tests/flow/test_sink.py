"""The actor of a sink: what is written and settled, what a failure does, and how it stands still for a cut."""

import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch, Ticket
from pipeline.errors import RecordError, RecordErrors, StageError, StorageError, Unavailable
from pipeline.flow.run import Run
from pipeline.flow.sink import SinkActor
from pipeline.settle.cut import SinkPoint
from pipeline.spans import Held
from pipeline.stage import PositionWriter, Restart, Retry, SinkContext, TransactionWriter, Writer
from pipeline.testing import ManualClock, settle
from pipeline.testing.opening import context_for
from tests.flow.driving import Writes, channel_of, read, run_of, within

pytestmark = pytest.mark.anyio


class Recording(Writer):
    """Keeps what it is given, unless the test has it fail."""

    def __init__(self, check: Callable[[list[Any]], None] = lambda records: None) -> None:
        self.check = check
        self.calls: list[list[Any]] = []
        self.records: list[Any] = []
        self.closed = 0

    async def write(self, batch: Batch) -> None:
        self.calls.append(list(batch.records))
        await anyio.lowlevel.checkpoint()
        self.check(batch.records)
        self.records.extend(batch.records)

    async def close(self) -> None:
        self.closed += 1


class Positioned(PositionWriter):
    """Keeps what it is given; a write waits until it is let go."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.prepared: list[bool] = []
        self.log: list[str] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def write(self, batch: Batch) -> None:
        self.log.append("write")
        await self.gate.wait()
        self.records.extend(batch.records)

    async def prepare(self, final: bool) -> None:
        self.prepared.append(final)

    def position(self) -> Any:
        return len(self.records)

    async def sync(self) -> None:
        self.log.append("sync")

    async def committed(self) -> None:
        self.log.append("committed")


class Transacting(TransactionWriter):
    """Says that it holds what the test says."""

    def __init__(self, *held: tuple[int, str]) -> None:
        self.records: list[Any] = []
        self.log: list[Any] = []
        self._held = Held()
        for number, child in held:
            self._held.add("source", [number], [child])

    async def write(self, batch: Batch) -> None:
        self.records.extend(batch.records)

    def held(self) -> Held:
        return self._held

    async def seal(self) -> None:
        self.log.append("seal")

    async def prune(self, frontiers: Any) -> None:
        self.log.append(dict(frontiers))


class Bench:
    """A sink's actor, its inbox, and the books."""

    def __init__(
        self,
        writer: Writer | Callable[[SinkContext], Writer],
        point: SinkPoint | None = None,
        on_failure: str = "skip",
        **keys: Any,
    ) -> None:
        self.clock = ManualClock()
        self.spec = Writes(writer, name="sink", **keys)
        self.run: Run = run_of(self.spec, clock=self.clock, on_failure=on_failure)
        context = context_for(self.spec)
        assert isinstance(context, SinkContext)
        context.delivery = "exactly_once"
        self.run.has_state = True
        self.actor = SinkActor(self.run, "sink", self.spec, context, point)
        self.actor.inbox = channel_of(self.run)

    async def give(self, *batches: list[Any] | Batch) -> None:
        """Write batches, from the opening to the end of the input."""
        await self.open_with(*batches)
        await self.clock.finish(self.actor.run())

    async def open_with(self, *batches: list[Any] | Batch) -> None:
        """Open the sink with these batches, and no more, in its inbox."""
        await self.actor.open()
        for batch in batches:
            await self.actor.inbox.send(batch if isinstance(batch, Batch) else read(self.run, *batch))
        self.actor.inbox.close()

    @property
    def account(self) -> dict[str, int]:
        return {name: count for name, count in self.run.ledger.account.as_dict().items() if count}


async def test_batches_are_written_in_order_settled_and_their_permits_given_back() -> None:
    writer = Recording()
    bench = Bench(writer)
    ended: list[Ticket] = []
    batch = read(bench.run, 1, 2)
    batch.ticket = Ticket(ended.append)
    await bench.give(batch, [3])
    await bench.actor.close()
    await bench.actor.close()

    assert writer.records == [1, 2, 3]
    assert bench.account == {"read": 3, "written": 3}
    assert len(ended) == 1 and ended[0].smooth
    assert writer.closed == 1


async def test_records_that_the_sink_names_are_dealt_with_and_the_others_written_again() -> None:
    def check(records: list[Any]) -> None:
        bad = {index: ValueError(f"bad {record}") for index, record in enumerate(records) if record < 0}
        if bad:
            raise RecordErrors(bad)

    writer = Recording(check)
    bench = Bench(writer, on_failure="collect")
    await bench.give([1, -2, 3, -4])

    assert writer.calls == [[1, -2, 3, -4], [1, 3]]
    assert writer.records == [1, 3]
    assert bench.account == {"read": 4, "written": 2, "collected": 2}
    assert [error["error"] for error in bench.run.collected] == ["ValueError: bad -2", "ValueError: bad -4"]


async def test_under_stop_what_came_before_the_bad_record_is_written_and_settled_and_nothing_behind_it() -> None:
    for named in (True, False):

        def check(records: list[Any], named: bool = named) -> None:
            bad = {index: ValueError("bad") for index, record in enumerate(records) if record < 0}
            if bad and named:
                raise RecordErrors(bad)
            if bad:
                raise ValueError("bad")

        writer = Recording(check)
        bench = Bench(writer, on_failure="stop")
        await bench.give([0, 1], [2, 3, -4, 5, -6], [7])

        assert writer.records == [0, 1, 2, 3]
        assert bench.account == {"read": 8, "written": 4, "unsettled": 4}
        assert bench.run.ledger.frontiers["source"].number == 4
        assert bench.run.halt is not None and "source record 4: ValueError: bad" in str(bench.run.halt)
        assert bench.actor.inbox.abandoned


@settings(max_examples=80, deadline=None)
@given(
    some.lists(some.lists(some.integers(-1, 5), min_size=1, max_size=12), max_size=4),
    some.sampled_from(["named", "all", "unknown"]),
    some.sampled_from(["skip", "dead_letter", "stop"]),
)
def test_bad_records_alone_fail_whatever_the_sink_knows_about_them(
    batches: list[list[int]], knows: str, policy: str
) -> None:
    def check(records: list[int]) -> None:
        bad = {index: ValueError("bad") for index, record in enumerate(records) if record < 0}
        if bad and knows != "unknown":
            raise RecordErrors(bad if knows == "named" else dict([next(iter(bad.items()))]))
        if bad:
            raise RecordError("one of them is bad")

    async def body() -> None:
        writer = Recording(check)
        bench = Bench(writer, on_failure="stop" if policy == "stop" else "skip")
        if policy == "dead_letter":
            bench.run.policies["sink"] = policy
        await bench.give(*batches)
        every = [record for batch in batches for record in batch]
        if policy == "stop":
            every = every[: every.index(-1)] if -1 in every else every
        assert writer.records == [record for record in every if record >= 0]
        account = bench.run.ledger.account
        assert account.written == len(writer.records)
        assert account.skipped + account.dead_lettered == every.count(-1)
        assert len(bench.run.letters) == account.dead_lettered
        assert account.read - account.unsettled == len(every)

    within(20, body)


async def test_what_is_unavailable_is_tried_again_and_then_stops_the_run_with_the_batch_unsettled() -> None:
    calls: list[int] = []

    def check(records: list[Any]) -> None:
        calls.append(len(records))
        if len(calls) < 3 or records == [9]:
            raise Unavailable("gone")

    writer = Recording(check)
    bench = Bench(writer, retry=Retry(attempts=3, backoff=1.0))
    batch = read(bench.run, 1, 2)
    ended: list[Ticket] = []
    batch.ticket = Ticket(ended.append)
    await bench.give(batch, [9], [10])

    assert writer.records == [1, 2]
    assert not ended[0].smooth
    assert bench.run.metrics["sink"].retries == 4
    assert bench.run.halt is not None and "Unavailable: gone" in str(bench.run.halt)
    assert bench.account == {"read": 4, "written": 2, "unsettled": 2}


async def test_storage_that_fails_is_not_tried_again() -> None:
    def check(records: list[Any]) -> None:
        raise StorageError("no space")

    writer = Recording(check)
    bench = Bench(writer, retry=Retry(attempts=3))
    with pytest.raises(StorageError, match="no space"):
        await bench.give([1])
    assert len(writer.calls) == 1
    assert bench.account == {"read": 1, "unsettled": 1}


async def test_a_drain_leaves_what_waits_for_another_attempt_unsettled() -> None:
    def check(records: list[Any]) -> None:
        raise Unavailable("gone")

    bench = Bench(Recording(check), retry=Retry(attempts=99, backoff=(50.0, 50.0)))
    await bench.actor.open()
    await bench.actor.inbox.send(read(bench.run, 1))
    await bench.actor.inbox.send(read(bench.run, 2))
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await settle()
        bench.run.drain()
    assert bench.run.halt is None
    assert bench.account == {"read": 2, "unsettled": 2}


async def test_what_the_sink_holds_already_is_dropped_and_counts_as_written() -> None:
    writer = Transacting((1, ""), (3, "0"))
    bench = Bench(writer)
    exploded = read(bench.run, "a", "b", "c", "d")
    exploded.explode([None, None, None, 2], ["a", "b", "c", "d0", "d1"])
    await bench.give(exploded)

    assert writer.records == ["a", "c", "d1"]
    assert bench.account == {"read": 4, "written": 4}
    assert bench.run.metrics["sink"].already_held == 2
    assert bench.actor.holds(next(read(bench.run, "x").origins())) is False


async def test_a_number_counts_as_held_when_any_child_of_it_is() -> None:
    bench = Bench(Transacting((1, ""), (3, "0")))
    await bench.actor.open()
    origins = list(read(bench.run, *range(5)).origins())
    assert [bench.actor.holds(origin) for origin in origins] == [False, True, False, True, False]


async def test_for_a_cut_a_sink_with_transactions_seals_and_prunes_and_is_not_held_still() -> None:
    writer = Transacting((1, ""))
    bench = Bench(writer)
    await bench.give(["a", "b"])
    await bench.actor.hold_still(False)
    assert bench.actor.point() == SinkPoint(position="its own database")
    bench.actor.go_on()
    await bench.actor.sync()
    await bench.actor.committed({"source": 2})
    assert writer.log == ["seal", {"source": 2}]


async def test_a_sink_with_a_position_stands_still_between_writes() -> None:
    writer = Positioned()
    bench = Bench(writer)
    await bench.actor.open()
    writer.gate = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await bench.actor.inbox.send(read(bench.run, 1, 2))
        await bench.actor.inbox.send(read(bench.run, 3))
        await settle()
        still, going_on = anyio.Event(), anyio.Event()

        async def hold() -> None:
            await bench.actor.hold_still(True)
            still.set()
            await going_on.wait()
            bench.actor.go_on()

        group.start_soon(hold)
        await settle()
        # The write under way is waited for.
        assert not still.is_set() and writer.log == ["write"]
        writer.gate.set()
        await settle()
        # And no other begins.
        assert still.is_set() and writer.log == ["write"] and writer.prepared == [True]
        point = bench.actor.point()
        assert point == SinkPoint(position=2, held=Held().encode())
        going_on.set()
        await settle()
        assert writer.records == [1, 2, 3]
        await bench.actor.sync()
        await bench.actor.committed({"source": 2})
        assert writer.log == ["write", "write", "sync", "committed"]
        bench.actor.inbox.close()


async def test_the_point_names_what_it_holds_beyond_the_frontier_until_that_has_passed() -> None:
    writer = Positioned()
    bench = Bench(writer)
    await bench.actor.open()
    first, second = read(bench.run, "a", "b"), read(bench.run, "c", "d")
    second.explode([1, 1], ["c0", "d0"])
    await bench.actor.inbox.send(second)
    bench.actor.inbox.close()
    await bench.actor.run()

    point = bench.actor.point()
    assert point is not None
    held = Held.decode(point.held)
    assert ("source", 2, "0") in held and ("source", 3, "0") in held and ("source", 1, "") not in held
    bench.run.ledger.settle(first)
    later = bench.actor.point()
    assert later is not None and not Held.decode(later.held)


class Numbers(list[int]):
    """Numbers that tell whether anybody still has them."""


async def test_the_numbers_that_the_frontier_has_passed_are_not_kept_until_the_next_cut() -> None:
    writer = Positioned()
    bench = Bench(writer)
    kept: list[weakref.ref[Numbers]] = []

    def numbered(*records: int) -> Batch:
        batch = read(bench.run, *records)
        batch.numbers = numbers = Numbers(batch.numbers)
        kept.append(weakref.ref(numbers))
        return batch

    held_up = numbered(0)
    await bench.give(*(numbered(n) for n in range(1, 50)))
    assert len([numbers for numbers in kept if numbers() is not None]) == 50
    bench.run.ledger.settle(held_up)
    del held_up

    bench.actor.inbox = channel_of(bench.run)
    await bench.give(numbered(50), numbered(51))
    assert len([numbers for numbers in kept if numbers() is not None]) <= 2
    assert bench.actor.point() == SinkPoint(position=51, held=Held().encode())


async def test_a_resumed_sink_drops_what_the_last_point_held() -> None:
    held = Held()
    held.add("source", [1, 2])
    writer = Positioned()
    bench = Bench(writer, SinkPoint(position=7, held=held.encode()))
    await bench.give(["a", "b", "c", "d"])
    assert writer.records == ["a", "d"]
    assert bench.account == {"read": 4, "written": 4}


async def test_several_batches_are_written_at_a_time_and_settle_as_they_end() -> None:
    clock: list[ManualClock] = []

    class Slow(Recording):
        async def write(self, batch: Batch) -> None:
            await clock[0].sleep(batch.records[0])
            self.records.extend(batch.records)

    writer = Slow()
    bench = Bench(writer, concurrency=2)
    clock.append(bench.clock)
    await bench.give([5], [1], [1])
    assert writer.records == [1, 1, 5]
    assert bench.clock.now() == 5
    assert bench.account == {"read": 3, "written": 3}


async def test_a_bug_of_the_sink_ends_the_run_unless_it_may_be_opened_again() -> None:
    def check(records: list[Any]) -> None:
        if failures:
            failures.pop()
            raise StageError("bug")

    failures = [1]
    with pytest.raises(StageError, match=r"stage 'sink'.*bug"):
        await Bench(Recording(check)).give([1])

    failures = [1]
    writer = Recording(check)
    bench = Bench(writer, restart=Restart(attempts=1))
    await bench.give([1])
    assert writer.records == [1]
    assert writer.closed == 1


class Reopened(Positioned):
    """Breaks at its second write."""

    async def write(self, batch: Batch) -> None:
        if self.records:
            raise StageError("broken")
        await super().write(batch)


def reopening(first: Writer, again: Callable[[], Writer]) -> Callable[[SinkContext], Writer]:
    """Return what opens a sink the first time, and what it gives when that is opened again."""
    writers = iter([lambda: first])
    return lambda context: next(writers, again)()


async def test_where_a_sink_cannot_be_opened_again_the_last_cut_has_the_position_of_what_it_wrote() -> None:
    def broken() -> Writer:
        raise RuntimeError("gone")

    bench = Bench(reopening(Reopened(), broken), restart=Restart(attempts=1))
    with pytest.raises(RuntimeError, match="gone"):
        await bench.give([1], [2])
    assert bench.run.ledger.frontiers["source"].number == 1
    await bench.actor.hold_still(False)
    point = bench.actor.point()
    bench.actor.go_on()
    assert point is not None and point.position == 1


async def test_a_cut_waits_while_a_sink_with_a_position_is_opened_again() -> None:
    opened = anyio.Event()
    again = Positioned()

    class Slow(Reopened):
        async def close(self) -> None:
            await opened.wait()

    bench = Bench(reopening(Slow(), lambda: again), restart=Restart(attempts=1))
    held = False

    async def hold() -> None:
        nonlocal held
        await bench.actor.hold_still(False)
        held = True
        bench.actor.go_on()

    await bench.open_with([1], [2])
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await settle()
        group.start_soon(hold)
        await settle()
        assert not held
        opened.set()
    assert held and again.records == [2]


async def test_what_comes_while_a_sink_is_opened_again_waits_for_it() -> None:
    opened = anyio.Event()
    broken = [True]
    again = Recording()

    class Breaks(Recording):
        async def write(self, batch: Batch) -> None:
            if broken:
                broken.clear()
                raise StageError("broken")
            await super().write(batch)

        async def close(self) -> None:
            await opened.wait()

    bench = Bench(reopening(Breaks(), lambda: again), restart=Restart(attempts=1), concurrency=2)
    await bench.open_with([1], [2])
    async with anyio.create_task_group() as group:
        group.start_soon(bench.actor.run)
        await settle()
        opened.set()
    assert sorted(again.records) == [1, 2]
    assert bench.account == {"read": 2, "written": 2}


async def test_the_deadline_of_attempts_begins_anew_when_a_sink_was_opened_again() -> None:
    said: list[Exception] = [StageError("broken"), Unavailable("not yet"), Unavailable("not yet")]

    class Slow(Recording):
        async def close(self) -> None:
            await bench.clock.sleep(5)

    def check(records: list[Any]) -> None:
        if said:
            raise said.pop(0)

    retry = Retry(attempts=5, backoff=0.01, deadline=1)
    writer = Slow(check)
    bench = Bench(writer, restart=Restart(attempts=1), retry=retry, on_failure="stop")
    await bench.give([1])

    assert writer.records == [1]
    assert bench.run.halt is None
