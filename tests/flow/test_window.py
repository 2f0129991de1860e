"""The window: several batches at work, handed on in order, and never more held than it may."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch
from pipeline.flow.gate import Rest
from pipeline.flow.window import Places, Window
from pipeline.testing import ManualClock, batch_of, settle
from tests.flow.driving import within

pytestmark = pytest.mark.anyio


class Work:
    """Batches whose work takes as long as the test says."""

    def __init__(self, seconds: list[float], rests: list[float] | None = None, stop_at: int | None = None) -> None:
        self.clock = ManualClock()
        self.seconds = seconds
        self.rests = rests or [0.0] * len(seconds)
        self.stop_at = stop_at
        self.taken = 0
        self.working = self.most_working = self.held = self.most_held = 0
        self.handed_on: list[int] = []
        self.handed_at: list[float] = []

    async def receive(self) -> Batch | None:
        await anyio.lowlevel.checkpoint()
        if self.taken == len(self.seconds):
            return None
        self.taken += 1
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        return batch_of(self.taken - 1)

    async def work(self, batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        number: int = batch.records[0]
        self.begin()
        await self.clock.sleep(self.seconds[number])
        if self.rests[number]:
            self.working -= 1
            async with rest():
                await self.clock.sleep(self.rests[number])
            self.begin()
        self.working -= 1

        async def hand_on() -> bool:
            self.handed_on.append(number)
            self.handed_at.append(self.clock.now())
            self.held -= 1
            return number != self.stop_at

        return hand_on

    def begin(self) -> None:
        self.working += 1
        self.most_working = max(self.most_working, self.working)

    async def run(self, concurrency: int, ordered: bool) -> None:
        await self.clock.finish(Window(concurrency, ordered, self.work).run(self.receive))


SECONDS = some.lists(some.sampled_from([0.0, 0.5, 1.0, 5.0]), max_size=12)


@settings(max_examples=80, deadline=None)
@given(SECONDS, some.data(), some.integers(1, 4), some.booleans())
def test_every_batch_is_handed_on_once_within_the_bounds(
    seconds: list[float], data: some.DataObject, concurrency: int, ordered: bool
) -> None:
    rests = data.draw(some.lists(some.sampled_from([0.0, 0.0, 2.0]), min_size=len(seconds), max_size=len(seconds)))
    work = Work(seconds, rests)
    within(20, lambda: work.run(concurrency, ordered))

    assert sorted(work.handed_on) == list(range(len(seconds)))
    if ordered:
        assert work.handed_on == sorted(work.handed_on)
    assert work.most_working <= concurrency
    assert work.most_held <= 2 * concurrency


async def test_an_unordered_window_hands_on_what_is_ready() -> None:
    work = Work([5, 1, 2])
    await work.run(3, ordered=False)
    assert (work.handed_on, work.handed_at) == ([1, 2, 0], [1, 2, 5])


async def test_an_ordered_window_waits_for_the_first_and_keeps_its_workers_busy() -> None:
    work = Work([5, 1, 1, 1, 1])
    await work.run(2, ordered=True)
    assert work.handed_on == [0, 1, 2, 3, 4]
    # Of five, four are held: the second worker goes through three while the first is at work.
    assert work.handed_at == [5, 5, 5, 5, 6]


async def test_a_rest_gives_back_the_worker_and_not_the_turn() -> None:
    work = Work([1, 1, 1], rests=[10, 0, 0])
    await work.run(1, ordered=True)
    assert work.handed_on == [0, 1, 2]
    # The second batch is worked on while the first rests; the window of one holds two.
    assert work.handed_at == [11, 11, 12]


async def test_a_handing_on_that_says_stop_ends_the_work_on_what_is_behind() -> None:
    work = Work([1, 2, 50, 50], stop_at=1)
    await work.run(2, ordered=True)
    assert work.handed_on == [0, 1]
    assert work.clock.now() == 2


@pytest.mark.parametrize("how", ["stop", "cancel", "error"])
async def test_no_batch_is_begun_once_the_window_is_over(how: str) -> None:
    work = Work([1, 50, 50, 50, 50], stop_at=0 if how == "stop" else None)
    begun: list[int] = []

    async def noted(batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        begun.append(batch.records[0])
        if how == "error" and len(begun) == 2:
            raise RuntimeError("bug")
        return await work.work(batch, rest)

    async def ended() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(Window(1, True, noted).run, work.receive)
                await work.clock.sleep(2)
                if how == "cancel":
                    scope.cancel()

    with suppress(ExceptionGroup):
        await work.clock.finish(ended())
    assert begun == [0, 1]


async def test_an_error_of_the_work_ends_the_window() -> None:
    async def receive() -> Batch | None:
        return batch_of(1)

    async def fail(batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        raise RuntimeError("bug")

    with pytest.raises(ExceptionGroup) as caught:
        await Window(2, ordered=True, work=fail).run(receive)
    assert caught.group_contains(RuntimeError, match="bug")


async def test_a_worker_goes_on_with_what_waits_in_the_same_turn() -> None:
    work = Work([1] * 8)
    turns: list[tuple[int, asyncio.Task[Any] | None]] = []
    begin = work.begin

    def noted() -> None:
        turns.append((work.taken, asyncio.current_task()))
        begin()

    work.begin = noted  # type: ignore[method-assign]
    await work.run(2, ordered=True)
    assert len({task for _, task in turns}) < 8
    assert work.clock.now() == 4


async def test_more_places_are_used_at_once_and_fewer_when_workers_are_done() -> None:
    work = Work([1] * 12)
    window = Window(1, True, work.work)

    async def resize() -> None:
        await work.clock.sleep(2.5)
        window.resize(4)
        await work.clock.sleep(2)
        assert work.most_working == 4
        work.most_working = 0
        window.resize(1)
        await work.clock.sleep(1)
        work.most_working = work.working

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(resize)
            await window.run(work.receive)

    await work.clock.finish(both())
    assert work.handed_on == list(range(12))
    assert work.most_working == 1


async def test_a_cancelled_rest_has_its_place_back_before_it_goes() -> None:
    places = Places(1)

    async def rest() -> None:
        await places.acquire()
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with places.rest():
                await anyio.sleep_forever()
        again.append("has the place")
        places.release()

    scopes: list[anyio.CancelScope] = []
    again: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(rest)
        await settle()
        await places.acquire()
        scopes[0].cancel()
        await settle()
        assert again == []
        places.release()
        await settle()
        assert again == ["has the place"]
    assert places.take()


async def test_a_place_that_comes_free_as_its_scope_is_cancelled_is_given_back() -> None:
    places = Places(1)
    came: list[str] = []

    async def wait() -> None:
        await places.acquire()
        came.append("in")

    async def end() -> None:
        places.release()
        group.cancel_scope.cancel()

    await places.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        group.start_soon(end)
    assert came == []
    assert places.take()


@settings(max_examples=100, deadline=None)
@given(some.lists(some.sampled_from(["ask", "cancel", "leave", "more", "fewer"]), max_size=40))
async def test_places_are_given_in_the_order_of_asking_and_never_too_many(acts: list[str]) -> None:
    places, count = Places(2), 2
    inside: list[int] = []
    got: list[int] = []
    asked: dict[int, asyncio.Task[None]] = {}

    async def ask(number: int) -> None:
        await places.acquire()
        inside.append(number)
        got.append(number)

    for number, act in enumerate(acts):
        before = len(inside)
        if act == "ask":
            asked[number] = asyncio.ensure_future(ask(number))
        elif act == "cancel" and (waiting := [task for task in asked.values() if not task.done()]):
            waiting[0].cancel()
        elif act == "leave" and inside:
            inside.pop()
            places.release()
        elif act in ("more", "fewer"):
            count = max(count + (1 if act == "more" else -1), 0)
            places.resize(count)
        await settle()
        waiting = [task for task in asked.values() if not task.done()]
        assert len(inside) <= max(count, before)
        assert not waiting or len(inside) >= count
    assert got == sorted(got)
    for task in asked.values():
        task.cancel()
    await settle()
