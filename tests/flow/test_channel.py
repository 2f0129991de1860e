"""Laws of the channel: bounded, in order, and nothing is lost when somebody is cancelled."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch, Ticket
from pipeline.flow.channel import Channel
from pipeline.testing import ManualClock, batch_of, settle
from tests.flow.driving import within

pytestmark = pytest.mark.anyio


def numbered(number: int, records: int = 1, size: int = 1) -> Batch:
    return Batch([number] * records, "source", size=size)


class Traffic:
    """Senders and a receiver that come, wait and are cancelled as a script says."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.sending: list[tuple[int, asyncio.Task[None]]] = []
        self.entered: list[int] = []
        self.received: list[int] = []
        self.receiving: asyncio.Task[None] | None = None
        self.numbers = 0

    async def send(self, number: int, batch: Batch) -> None:
        await self.channel.send(batch)
        self.entered.append(number)

    async def receive(self) -> None:
        batch = await self.channel.receive()
        if batch is not None:
            # No await between taking a batch and owning it.
            self.received.append(batch.records[0])

    def begin_send(self, records: int, size: int) -> None:
        self.numbers += 1
        task = asyncio.ensure_future(self.send(self.numbers, numbered(self.numbers, records, size)))
        self.sending.append((self.numbers, task))

    def begin_receive(self) -> None:
        if self.receiving is None or self.receiving.done():
            self.receiving = asyncio.ensure_future(self.receive())

    def cancel_send(self, which: int) -> None:
        waiting = [task for _, task in self.sending if not task.done()]
        if waiting:
            waiting[which % len(waiting)].cancel()

    def cancel_receive(self) -> None:
        if self.receiving is not None:
            self.receiving.cancel()

    async def finish(self) -> None:
        """Receive until nobody waits to send; a wake-up that was lost would leave somebody waiting."""
        await settle()
        while len(self.channel) or any(not task.done() for _, task in self.sending):
            before = len(self.received)
            self.begin_receive()
            await settle()
            assert len(self.received) > before, "a batch is there, or somebody waits to send, and nothing comes"
        if self.receiving is not None:
            self.receiving.cancel()
            await asyncio.wait([self.receiving])


STEPS = some.lists(
    some.one_of(
        some.tuples(some.just("send"), some.integers(1, 6), some.integers(0, 12)),
        some.tuples(some.just("receive")),
        some.tuples(some.just("cancel a sender"), some.integers(0, 5)),
        some.tuples(some.just("cancel the receiver")),
        some.tuples(some.just("turn"), some.integers(1, 3)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, some.sampled_from([{"records": 8}, {"batches": 1}, {"batches": 3}, {"records": 5, "bytes": 10}]))
def test_each_batch_is_received_once_in_order_whoever_is_cancelled(
    steps: list[tuple[Any, ...]], bounds: dict[str, int]
) -> None:
    async def body() -> None:
        channel = Channel(ManualClock(), **bounds)
        traffic = Traffic(channel)
        acts: dict[str, Callable[..., Any]] = {
            "send": traffic.begin_send,
            "receive": traffic.begin_receive,
            "cancel a sender": traffic.cancel_send,
            "cancel the receiver": traffic.cancel_receive,
        }
        for name, *arguments in steps:
            if name == "turn":
                for _ in range(arguments[0]):
                    await asyncio.sleep(0)
            else:
                acts[name](*arguments)
            check_bounds(channel)
        await traffic.finish()
        # What was sent to the end was received, what was cancelled was not, and all in the order of entry.
        assert traffic.received == traffic.entered
        cancelled = {number for number, task in traffic.sending if task.cancelled()}
        assert set(traffic.received) == {number for number, _ in traffic.sending} - cancelled
        assert traffic.received == sorted(traffic.received)
        assert channel.records == channel.bytes == 0

    within(20, body)


def check_bounds(channel: Channel) -> None:
    if len(channel) <= 1:
        return
    assert channel.bytes <= channel.max_bytes
    if channel.max_records is not None:
        assert channel.records <= channel.max_records
    else:
        assert len(channel) <= channel.max_batches


async def test_a_full_channel_makes_its_sender_wait_and_counts_for_how_long() -> None:
    clock = ManualClock()
    channel = Channel(clock, batches=1)
    await channel.send(numbered(1))
    sender = asyncio.ensure_future(channel.send(numbered(2)))
    await clock.advance(3)

    assert not sender.done()
    assert channel.fill == 1
    assert channel.take() is not None
    await settle()
    assert sender.done()
    assert channel.blocked_seconds == 3
    assert channel.peak_records == 1


async def test_a_batch_over_the_bound_enters_an_empty_channel_alone() -> None:
    channel = Channel(ManualClock(), records=2, bytes=10)
    await channel.send(numbered(1, records=5, size=50))
    sender = asyncio.ensure_future(channel.send(numbered(2)))
    await settle()

    assert not sender.done()
    channel.take()
    await settle()
    assert sender.done()


async def test_bytes_are_bounded_as_records_are() -> None:
    channel = Channel(ManualClock(), records=100, bytes=10)
    await channel.send(numbered(1, size=6))
    sender = asyncio.ensure_future(channel.send(numbered(2, size=5)))
    await settle()

    assert not sender.done() and channel.bytes == 6
    channel.take()
    await settle()
    assert sender.done() and channel.bytes == 5


async def test_who_waits_first_enters_first_even_if_a_smaller_batch_would_fit() -> None:
    channel = Channel(ManualClock(), records=4)
    await channel.send(numbered(0, records=2))
    await channel.send(numbered(0, records=1))
    large = asyncio.ensure_future(channel.send(numbered(1, records=3)))
    await settle()
    small = asyncio.ensure_future(channel.send(numbered(2, records=1)))
    await settle()

    assert not large.done() and not small.done()
    channel.take()
    await settle()
    assert large.done() and not small.done()
    channel.take()
    await settle()
    assert [batch.records[0] for batch in (channel.take(), channel.take()) if batch] == [1, 2]


async def test_a_wake_up_that_finds_its_sender_cancelled_goes_to_the_next() -> None:
    channel = Channel(ManualClock(), batches=1)
    await channel.send(numbered(1))
    senders = [asyncio.ensure_future(channel.send(numbered(number))) for number in (2, 3)]
    await settle()
    senders[0].cancel()
    channel.take()
    await settle()

    assert senders[0].cancelled() and senders[1].done()


async def test_the_receiver_gets_none_when_every_sender_has_closed_and_nothing_is_left() -> None:
    channel = Channel(ManualClock(), senders=2)
    receiver = asyncio.ensure_future(channel.receive())
    await settle()
    channel.close()
    await settle()
    assert not receiver.done() and not channel.closed
    await channel.send(numbered(1))
    channel.close()

    assert (await receiver) is not None
    assert channel.ended
    assert await channel.receive() is None


async def test_a_poke_wakes_the_receiver_once_though_nothing_came() -> None:
    channel = Channel(ManualClock())
    waiting = asyncio.ensure_future(channel.changed())
    await settle()
    assert not waiting.done()
    channel.poke()
    await waiting
    again = asyncio.ensure_future(channel.changed())
    await settle()
    assert not again.done()
    again.cancel()


async def test_a_poke_before_the_wait_is_not_lost() -> None:
    channel = Channel(ManualClock())
    channel.poke()
    await channel.changed()


async def test_a_receiver_that_wants_no_data_is_woken_by_a_poke_only() -> None:
    channel = Channel(ManualClock())
    waiting = asyncio.ensure_future(channel.changed(data=False))
    await settle()
    await channel.send(numbered(1))
    await settle()
    assert not waiting.done()
    channel.poke()
    await settle()
    assert waiting.done()


async def test_an_abandoned_channel_lets_every_sender_go_and_gives_their_permits_back() -> None:
    ended: list[Ticket] = []
    channel = Channel(ManualClock(), batches=1)
    batches = [batch_of(n) for n in range(3)]
    for batch in batches:
        batch.ticket = Ticket(ended.append)
    await channel.send(batches[0])
    waiting = [asyncio.ensure_future(channel.send(batch)) for batch in batches[1:]]
    await settle()
    channel.abandon()
    await settle()

    assert all(task.done() for task in waiting)
    assert len(channel) == channel.records == channel.bytes == 0
    assert len(ended) == 3
    assert not any(ticket.smooth for ticket in ended)


async def test_a_receiver_may_take_a_batch_in_the_turn_of_its_sender_unless_others_wait() -> None:
    channel = Channel(ManualClock())
    taken: list[Batch] = []
    willing = [True]

    def take(batch: Batch) -> bool:
        if willing[0]:
            taken.append(batch)
        return willing[0]

    channel.taker = take
    first, second, third = numbered(0), numbered(1), numbered(2)
    await channel.send(first)
    willing[0] = False
    await channel.send(second)
    willing[0] = True
    await channel.send(third)

    assert taken == [first]
    assert channel.waiting() == [second, third]
