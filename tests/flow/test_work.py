"""What a processor does to a batch: results, failures and halts, for each form of work."""

import copy
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Batch, Failed, Many, Origin
from pipeline.errors import ConfigError, RecordError, StageError, StorageError, Unavailable
from pipeline.flow.attempts import Abandoned
from pipeline.flow.run import Halt, Run
from pipeline.flow.step import Step
from pipeline.flow.work import make_step
from pipeline.stage import Each, EachAsync, FunctionContext, Retry, Whole, Work
from pipeline.testing import ManualClock, settle
from tests.flow.driving import Works, read, run_of, within

pytestmark = pytest.mark.anyio


class Bench:
    """One step and the books it writes to."""

    def __init__(self, work: Work, clock: ManualClock | None = None, on_failure: str = "skip", **keys: Any) -> None:
        self.clock = clock or ManualClock()
        spec = Works(work, name="work", **keys)
        self.run: Run = run_of(spec, clock=self.clock, on_failure=on_failure)
        self.step: Step = make_step(self.run, "work", spec, work)
        self.halt: Halt | None = None

    async def give(self, *records: Any) -> list[Any]:
        return await self.take(read(self.run, *records))

    async def take(self, batch: Batch) -> list[Any]:
        """Return the records that go on, settled as if they were written."""
        batch, self.halt = await self.step.run(batch)
        self.run.ledger.settle(batch)
        return batch.records

    @property
    def account(self) -> dict[str, int]:
        return {name: count for name, count in self.run.ledger.account.as_dict().items() if count}


def doubled(record: int) -> Any:
    """Return twice the record; None for 0, several for 1, a failure for 2, an error for 3."""
    if record == 3:
        raise ValueError("three")
    results: dict[int, Any] = {0: None, 1: Many([1, 1]), 2: Failed(2, "two")}
    return results.get(record, record * 2)


async def doubled_async(record: int) -> Any:
    await anyio.lowlevel.checkpoint()
    return doubled(record)


def doubled_whole(records: list[int]) -> list[Any]:
    return [doubled(record) for record in records]


async def doubled_whole_async(records: list[int]) -> list[Any]:
    await anyio.lowlevel.checkpoint()
    return doubled_whole(records)


FORMS: dict[str, Callable[[], Work]] = {
    "each": lambda: Each(doubled),
    "each async": lambda: EachAsync(doubled_async),
    "whole": lambda: Whole(doubled_whole),
    "whole async": lambda: Whole(doubled_whole_async),
}
form = pytest.mark.parametrize("form", list(FORMS))


@form
async def test_a_result_is_a_record_none_many_or_a_failure(form: str) -> None:
    bench = Bench(FORMS[form]())
    assert await bench.give(5, 0, 1, 2, 6, 3, 7) == [10, 1, 1, 12, 14]
    assert bench.account == {"read": 7, "written": 4, "filtered": 1, "skipped": 2}
    assert bench.run.metrics["work"].failed == {"skip": 2}
    assert bench.run.metrics["work"].filtered == 1


@form
async def test_under_stop_what_came_before_goes_on_and_the_rest_stays_unsettled(form: str) -> None:
    bench = Bench(FORMS[form](), on_failure="stop")
    assert await bench.give(5, 0, 6, 3, 7, 8) == [10, 12]
    assert bench.halt is not None
    assert str(bench.halt).startswith("stage 'work' (processor ")
    assert "source record 3: ValueError: three" in str(bench.halt)
    assert bench.account == {"read": 6, "written": 2, "filtered": 1, "unsettled": 3}


@form
async def test_the_first_record_to_fail_stops_the_run(form: str) -> None:
    keys: dict[str, Any] = {"concurrency": 3} if form == "each async" else {}
    bench = Bench(FORMS[form](), on_failure="stop", **keys)
    assert await bench.give(4, 2, 3) == [8]
    assert bench.halt is not None and "source record 1: ValueError: two" in str(bench.halt)


@settings(max_examples=60, deadline=None)
@given(
    some.sampled_from(list(FORMS)),
    some.lists(some.integers(0, 6), max_size=25),
    some.sampled_from(["skip", "collect", "stop"]),
)
def test_every_form_gives_the_same_results_and_settles_every_number_once(
    form: str, records: list[int], policy: str
) -> None:
    async def body() -> None:
        bench = Bench(FORMS[form](), on_failure=policy)
        found = await bench.give(*records) if records else []
        bad = next((index for index, record in enumerate(records) if record in (2, 3)), len(records))
        head = records[:bad] if policy == "stop" else records
        expected: list[int] = []
        for record in head:
            expected += {0: [], 1: [1, 1], 2: [], 3: []}.get(record, [record * 2])
        assert found == expected
        assert bench.run.ledger.account.unsettled == len(records) - len(head)
        assert (bench.halt is None) == (len(head) == len(records))

    within(20, body)


async def test_a_stop_iteration_of_the_function_is_the_records_fault() -> None:
    def stop(record: int) -> int:
        return next(iter([])) if record == 2 else record

    bench = Bench(Each(stop))
    assert await bench.give(1, 2, 3) == [1, 3]
    assert bench.account == {"read": 3, "written": 2, "skipped": 1}


async def test_a_pass_over_many_records_lets_others_have_their_turn() -> None:
    clock = ManualClock()
    turns: list[int] = []

    def slow(record: int) -> int:
        vars(clock)["_now"] += 0.001
        return record

    async def other() -> None:
        for turn in range(3):
            turns.append(turn)
            await anyio.lowlevel.checkpoint()

    bench = Bench(Each(slow), clock)
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        assert len(await bench.give(*range(1000))) == 1000
        assert turns == [0, 1, 2]


GIVES: list[tuple[Any, Callable[[int], Any], list[int]]] = [
    ("keep", lambda r: r > 1, [2, 3]),
    ("record", lambda r: r * 2, [2, 4, 6]),
    ("many", lambda r: [r] * r, [1, 2, 2, 3, 3, 3]),
    ("any", lambda r: r if r > 2 else None, [3]),
]


@pytest.mark.parametrize(("gives", "function", "expected"), GIVES)
async def test_each_says_what_its_function_gives(gives: Any, function: Callable[[int], Any], expected: Any) -> None:
    assert await Bench(Each(function, gives=gives)).give(1, 2, 3) == expected


@pytest.mark.parametrize("gives", ["keep", "record", "many", "any"])
async def test_a_failure_is_one_whatever_the_function_gives(gives: Any) -> None:
    def function(record: int) -> Any:
        if record == 2:
            raise RecordError("two")
        return [record] if gives == "many" else record

    bench = Bench(Each(function, gives=gives))
    assert await bench.give(1, 2, 3) == [1, 3]
    assert bench.account == {"read": 3, "written": 2, "skipped": 1}


async def test_a_function_may_ask_for_the_origin_or_for_the_context() -> None:
    def placed(record: str, origin: Origin) -> Any:
        return (record, origin.number)

    assert await Bench(Each(placed, origins=True)).give("a", "b") == [("a", 0), ("b", 1)]

    def told(record: str, context: FunctionContext) -> Any:
        return (record, context.key, context.attempt, context.position)

    async def told_async(record: str, context: FunctionContext) -> Any:
        return told(record, context)

    expected = [("a", "lineage/source/0", 1, "source record 0")]
    assert await Bench(Each(told, context=True)).give("a") == expected
    assert await Bench(EachAsync(told_async, context=True)).give("a") == expected

    def keyed(records: list[str], context: FunctionContext, keys: list[str]) -> list[Any]:
        return [(record, key, context.key) for record, key in zip(records, keys, strict=True)]

    found = await Bench(Whole(keyed, context=True, keys=True)).give("a", "b")
    assert found == [("a", "lineage/source/0", "lineage/source/0"), ("b", "lineage/source/1", "lineage/source/0")]


# --- attempts ---------------------------------------------------------------------------------------------------------


class Flaky:
    """Fails so many times before it works; changes its record first."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.seen: list[Any] = []

    def work(self, form: str) -> Work:
        works: dict[str, Work] = {
            "each": Each(self.each, changes=True),
            "each_async": EachAsync(self.each_async),
            "whole": Whole(self.whole),
        }
        return works[form]

    def each(self, record: dict[str, Any]) -> Any:
        self.seen.append(copy.deepcopy(record))
        record["touched"] = True
        if self.left:
            self.left -= 1
            raise self.error
        return record

    async def each_async(self, record: dict[str, Any]) -> Any:
        return self.each(record)

    def whole(self, records: list[dict[str, Any]]) -> list[Any]:
        return [self.each(record) for record in records]


RETRY = Retry(attempts=3, backoff=1.0)


@pytest.mark.parametrize("form", ["each", "each_async", "whole"])
async def test_a_further_attempt_gets_the_record_as_it_came(form: str) -> None:
    flaky = Flaky(2, Unavailable())
    bench = Bench(flaky.work(form), retry=RETRY)
    found = await bench.clock.finish(bench.give({"n": 1}))
    assert found == [{"n": 1, "touched": True}]
    assert flaky.seen == [{"n": 1}] * 3
    assert bench.run.metrics["work"].retries == 2


@pytest.mark.parametrize("form", ["each", "each_async", "whole"])
async def test_the_letter_of_a_record_holds_it_as_it_came(form: str) -> None:
    flaky = Flaky(99, ValueError("bad"))
    spec = Works(flaky.work(form), name="work")
    bench = Bench(spec.work)
    bench.run.policies["work"] = "dead_letter"
    bench.step = make_step(bench.run, "work", spec, spec.work)
    assert await bench.give({"n": 1}) == []
    [letter] = bench.run.letters
    assert letter.record == {"n": 1}
    assert (letter.error_type, letter.attempts, letter.stage) == ("ValueError", 1, "work")
    assert letter.error.startswith("bad (") and "test_work.py:" in letter.error
    assert letter.key == "lineage/source/0"
    assert bench.account == {"read": 1, "dead_lettered": 1}


@form
async def test_a_record_that_is_bad_is_not_tried_again(form: str) -> None:
    calls: list[Any] = []

    def bad(record: Any) -> Any:
        calls.append(record)
        raise RecordError("bad")

    async def bad_async(record: Any) -> Any:
        bad(record)

    works: dict[str, Work] = {"each": Each(bad), "each async": EachAsync(bad_async), "whole": Whole(bad)}
    bench = Bench(works.get(form, Whole(bad_async)), retry=RETRY)
    assert await bench.give(7) == []
    assert len(calls) == 1


async def test_what_cannot_be_reached_stops_the_run_and_blames_no_record() -> None:
    def gone(record: int) -> int:
        if record > 1:
            raise Unavailable("gone")
        return record

    def all_gone(records: list[int]) -> list[int]:
        raise Unavailable("gone")

    for work in (Each(gone), Whole(all_gone)):
        bench = Bench(work, retry=Retry(attempts=2, backoff=1.0))
        found = await bench.clock.finish(bench.give(1, 2, 3))
        assert bench.halt is not None and "Unavailable: gone" in str(bench.halt)
        assert bench.run.metrics["work"].failed == {}
        assert bench.run.ledger.account.unsettled == 3 - len(found)


async def test_storage_that_fails_ends_the_run_at_once() -> None:
    def full(record: Any) -> Any:
        raise StorageError("no space")

    async def full_async(record: Any) -> Any:
        full(record)

    for work in (Each(full), EachAsync(full_async), Whole(full), Whole(full_async)):
        with pytest.raises(StorageError, match="no space"):
            await Bench(work, retry=RETRY).give(1)


async def test_an_attempt_that_takes_too_long_is_one_that_failed() -> None:
    calls: list[int] = []

    async def hang(record: int) -> int:
        calls.append(record)
        if len(calls) == 1:
            await anyio.sleep_forever()
        return record

    # The bound of an attempt is real time: it is anyio's own.
    bench = Bench(EachAsync(hang), timeout=0.01, retry=Retry(attempts=2, backoff=0.0))
    assert await bench.give(1) == [1]
    assert calls == [1, 1]


async def test_a_drain_abandons_a_wait_for_the_next_attempt() -> None:
    flaky = Flaky(99, Unavailable())
    bench = Bench(EachAsync(flaky.each_async), retry=Retry(attempts=99, backoff=(100.0, 100.0)))
    bench_ended: list[str] = []

    async def give() -> None:
        try:
            await bench.give({"n": 1})
        except Abandoned:
            bench_ended.append("abandoned")

    async with anyio.create_task_group() as group:
        group.start_soon(give)
        await settle()
        assert bench_ended == []
        bench.run.drain()
    assert bench_ended == ["abandoned"]
    assert bench.run.ledger.account.unsettled == 1


# --- a record at a time, asynchronously -------------------------------------------------------------------------------


async def test_so_many_records_are_at_work_at_a_time_and_results_keep_their_order() -> None:
    clock = ManualClock()
    working = 0
    most: list[int] = []

    async def work(record: float) -> float:
        nonlocal working
        working += 1
        most.append(working)
        await clock.sleep(record)
        working -= 1
        return record

    bench = Bench(EachAsync(work), clock, concurrency=3)
    assert await clock.finish(bench.give(5, 1, 2, 1, 4)) == [5, 1, 2, 1, 4]
    assert max(most) == 3
    assert clock.now() == 6


async def test_records_of_several_batches_share_the_places() -> None:
    clock = ManualClock()

    async def work(record: float) -> float:
        await clock.sleep(record)
        return record

    bench = Bench(EachAsync(work), clock, concurrency=2)

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.give, 1, 1)
            group.start_soon(bench.give, 1, 1)

    await clock.finish(both())
    assert clock.now() == 2


# --- a batch at a time ------------------------------------------------------------------------------------------------


async def test_one_bad_record_of_a_thousand_is_found_in_at_most_22_calls() -> None:
    for bad in (0, 1, 499, 500, 777, 999):
        calls: list[int] = []

        def work(records: list[int], bad: int = bad, calls: list[int] = calls) -> list[int]:
            calls.append(len(records))
            if bad in records:
                raise ValueError("bad")
            return records

        bench = Bench(Whole(work))
        found = await bench.give(*range(1000))
        assert found == [number for number in range(1000) if number != bad]
        assert len(calls) <= 22
        assert bench.account == {"read": 1000, "written": 999, "skipped": 1}


@settings(max_examples=60, deadline=None)
@given(some.integers(1, 40), some.sets(some.integers(0, 39), max_size=6))
def test_bisecting_finds_exactly_the_bad_records(count: int, bad: set[int]) -> None:
    async def body() -> None:
        def work(records: list[int]) -> list[int]:
            if bad & set(records):
                raise ValueError(f"bad: {sorted(bad & set(records))}")
            return records

        bench = Bench(Whole(work), on_failure="collect")
        assert await bench.give(*range(count)) == [number for number in range(count) if number not in bad]
        assert [error["record"] for error in bench.run.collected] == [str(n) for n in sorted(bad) if n < count]
        assert bench.run.ledger.unsettled == 0

    within(20, body)


async def test_parts_of_a_batch_that_failed_are_tried_once_each() -> None:
    calls: list[list[int]] = []

    def work(records: list[int]) -> list[int]:
        calls.append(list(records))
        if 2 in records:
            raise ValueError("bad")
        return records

    bench = Bench(Whole(work), retry=Retry(attempts=3, backoff=1.0))
    assert await bench.clock.finish(bench.give(0, 1, 2, 3)) == [0, 1, 3]
    assert calls == [[0, 1, 2, 3]] * 3 + [[0, 1], [2, 3], [2], [3]]


@pytest.mark.parametrize("returned", [[1], [1, 2, 3], None, "ab", Many([1, 2])])
async def test_another_number_of_results_is_an_error_of_the_stage(returned: Any) -> None:
    def work(records: list[int]) -> Any:
        return returned

    with pytest.raises(StageError, match="stage 'work'"):
        await Bench(Whole(work)).give(1, 2)


async def test_an_aggregate_stands_for_its_whole_batch() -> None:
    def sums(records: list[int]) -> list[int]:
        return [sum(records), len(records)]

    bench = Bench(Whole(sums, aggregate=True))
    batch, _ = await bench.step.run(read(bench.run, 1, 2, 3))
    assert batch.records == [6, 3]
    assert [origin[1:] for origin in batch.origins()] == [(2, "0"), (2, "1")]
    assert bench.run.ledger.account.settled == 0
    bench.run.ledger.settle(batch)
    assert bench.account == {"read": 3, "written": 3}
    assert bench.run.ledger.unsettled == 0


async def test_an_aggregate_that_gives_nothing_filters_its_batch() -> None:
    def nothing(records: list[int]) -> list[int]:
        return []

    bench = Bench(Whole(nothing, aggregate=True))
    assert await bench.give(1, 2, 3) == []
    assert bench.account == {"read": 3, "filtered": 3}


async def test_an_aggregate_that_fails_fails_every_record() -> None:
    def fail(records: list[int]) -> list[int]:
        raise ValueError("bad")

    bench = Bench(Whole(fail, aggregate=True))
    assert await bench.give(1, 2, 3) == []
    assert bench.account == {"read": 3, "skipped": 3}


def test_work_of_no_known_form_is_an_error_of_the_stage() -> None:
    spec = Works(Work(), name="work")
    with pytest.raises(StageError, match=r"its open\(\) returned Work"):
        make_step(run_of(spec), "work", spec, Work())


def test_two_stages_of_one_name_are_no_plan() -> None:
    with pytest.raises(ConfigError, match="same name"):
        run_of(Works(Each(doubled), name="x"), Works(Each(doubled), name="x"))
