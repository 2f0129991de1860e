"""The outlet: who gets which records, and that each number is settled as often as it was sent."""

from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Origin, Ticket
from pipeline.flow.outlet import Branch, Outlet
from pipeline.flow.run import Halt, Run
from pipeline.testing import PlainListSink
from tests.flow.driving import channel_of, drained, read, run_of, within

pytestmark = pytest.mark.anyio


class How(TypedDict, total=False):
    """What a branch picks."""

    when: Callable[[Any], Any]
    otherwise: bool
    child: str


class Fan:
    """An outlet to several channels."""

    def __init__(self, *branches: How, **keys: Any) -> None:
        self.run: Run = run_of(PlainListSink(name="sink"), **keys)
        self.channels = [channel_of(self.run) for _ in branches]
        self.outlet = Outlet(
            self.run, [Branch("sink", channel, **how) for channel, how in zip(self.channels, branches, strict=True)]
        )

    async def send(self, *records: Any) -> None:
        await self.outlet.send(read(self.run, *records))

    async def finish(self) -> list[list[Any]]:
        """Settle what was sent; return the records of each branch."""
        found: list[list[Any]] = []
        for channel in self.channels:
            batches = await drained(channel)
            for batch in batches:
                self.run.ledger.settle(batch)
            found.append([record for batch in batches for record in batch.records])
        return found


async def test_a_single_stage_gets_the_batch_itself() -> None:
    fan = Fan({})
    batch = read(fan.run, 1, 2)
    await fan.outlet.send(batch)
    assert fan.channels[0].take() is batch


async def test_each_branch_gets_what_it_picks_and_the_rest_goes_to_who_takes_otherwise() -> None:
    fan = Fan({"when": lambda r: r < 3}, {"when": lambda r: r % 2}, {"otherwise": True})
    await fan.send(*range(7))
    assert await fan.finish() == [[0, 1, 2], [1, 3, 5], [4, 6]]
    assert fan.run.ledger.account.written == 7
    assert fan.run.ledger.unsettled == 0


async def test_what_matches_nowhere_is_filtered() -> None:
    fan = Fan({"when": lambda r: r < 2}, {"when": lambda r: r < 1})
    await fan.send(0, 1, 2, 3)
    await fan.send(5)
    assert await fan.finish() == [[0, 1], [0]]
    assert (fan.run.ledger.account.written, fan.run.ledger.account.filtered) == (2, 3)


async def test_branches_own_their_records() -> None:
    fan = Fan({}, {})
    await fan.send({"n": 1})
    first, second = await fan.finish()
    first[0]["n"] = 2
    assert second == [{"n": 1}]


async def test_branches_that_meet_again_send_children_by_name() -> None:
    fan = Fan({"child": "left"}, {"child": "right"})
    await fan.send("x")
    origins = [next(batch.origins()) for channel in fan.channels for batch in await drained(channel)]
    assert [origin.child for origin in origins] == ["@left", "@right"]


async def test_when_may_ask_for_the_origin() -> None:
    def is_second(record: str, origin: Origin) -> bool:
        return origin.number == 1

    when: Any = is_second
    fan = Fan({})
    fan.outlet = Outlet(fan.run, [Branch("sink", fan.channels[0], when, origins=True)])
    await fan.send("x", "y")
    assert await fan.finish() == [["y"]]


async def test_a_record_that_when_fails_on_is_dealt_with_by_the_policy_of_that_stage() -> None:
    fan = Fan({"when": lambda r: r["a"]}, {}, on_failure="skip")
    await fan.send({"a": 1}, {}, {"a": 0})
    assert await fan.finish() == [[{"a": 1}], [{"a": 1}, {"a": 0}]]
    assert fan.run.ledger.account.skipped == 1
    assert fan.run.ledger.unsettled == 0


async def test_under_stop_what_came_before_it_is_sent_and_the_rest_stays_unsettled() -> None:
    fan = Fan({"when": lambda r: r["a"]}, {})
    with pytest.raises(Halt, match="KeyError"):
        await fan.send({"a": 1}, {}, {"a": 1})
    assert await fan.finish() == [[{"a": 1}], [{"a": 1}]]
    assert (fan.run.ledger.account.written, fan.run.ledger.account.unsettled) == (1, 2)


async def test_an_empty_batch_settles_and_its_permit_is_free() -> None:
    fan = Fan({}, {})
    ended: list[Ticket] = []
    batch = read(fan.run, 1, 2)
    batch.ticket = Ticket(ended.append)
    batch.keep([False, False])
    await fan.outlet.send(batch)
    assert len(ended) == 1
    assert fan.run.ledger.account.filtered == 2


async def test_a_permit_is_free_when_every_branch_has_ended() -> None:
    fan = Fan({}, {"when": lambda r: r > 1}, {"when": lambda r: r > 100})
    ended: list[Ticket] = []
    batch = read(fan.run, 1, 2)
    batch.ticket = Ticket(ended.append)
    await fan.outlet.send(batch)
    parts = [part for channel in fan.channels for part in await drained(channel)]
    assert len(parts) == 2
    for part in parts:
        assert ended == []
        assert part.ticket is not None
        part.ticket.close()
    assert len(ended) == 1


@settings(max_examples=80, deadline=None)
@given(
    some.lists(some.lists(some.integers(0, 9), max_size=8), max_size=5),
    some.lists(some.one_of(some.none(), some.integers(0, 10)), min_size=2, max_size=4),
    some.booleans(),
)
def test_every_number_settles_whatever_the_branches_take(
    batches: list[list[int]], bounds: list[int | None], otherwise: bool
) -> None:
    async def body() -> None:
        branches = [How() if bound is None else How(when=bound.__gt__) for bound in bounds]
        fan = Fan(*branches, *([How(otherwise=True)] if otherwise else []))
        for records in batches:
            await fan.send(*records)
        every = [record for records in batches for record in records]
        found = await fan.finish()
        for bound, records in zip(bounds, found, strict=False):
            assert records == [record for record in every if bound is None or record < bound]
        taken = [record for record in every if any(bound is None or record < bound for bound in bounds)]
        if otherwise:
            assert found[-1] == [record for record in every if not any(b is None or record < b for b in bounds)]
            taken = every
        assert fan.run.ledger.unsettled == 0
        assert fan.run.ledger.account.written == len(taken)
        assert fan.run.ledger.account.filtered == len(every) - len(taken)

    within(20, body)
