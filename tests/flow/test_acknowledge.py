"""What goes on of a batch in which records fail: every way to acknowledge under every policy."""

from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline import Pipeline, Report
from pipeline.batch import Batch, Failed
from pipeline.errors import RecordErrors, Unavailable
from pipeline.flow.work import make_step
from pipeline.stage import CircuitBreaker, Retry, Whole, Writer
from pipeline.testing import ListSource, ManualClock, PlainListSink
from stages import batchers, processors
from tests.flow.driving import Works, Writes, read, run_of, within

pytestmark = pytest.mark.anyio

Acknowledge = Literal["each", "all_or_nothing", "last_successful"]
Policy = Literal["stop", "dead_letter", "collect", "skip"]
BAD = {6, 13}
SIZE = 4
COUNT = 20

every = pytest.mark.parametrize("policy", ["stop", "dead_letter", "collect", "skip"])
way = pytest.mark.parametrize("acknowledge", ["each", "all_or_nothing", "last_successful"])
how = pytest.mark.parametrize("tells", ["which", "that"])
OUTCOMES = {"dead_letter": "dead_lettered", "collect": "collected", "skip": "skipped"}


def expected(acknowledge: Acknowledge, policy: Policy) -> tuple[list[int], int]:
    """Return the records that go on, in order, and how many fail."""
    good: list[int] = []
    failed = 0
    for start in range(0, COUNT, SIZE):
        batch = list(range(start, start + SIZE))
        bad = BAD & set(batch)
        if policy == "stop" and bad:
            return good + ([] if acknowledge == "all_or_nothing" else [n for n in batch if n < min(bad)]), 0
        if bad and acknowledge == "all_or_nothing":
            failed += SIZE
            continue
        good += [n for n in batch if n not in bad]
        failed += len(bad)
    return good, failed


def check(report: Report, acknowledge: Acknowledge, policy: Policy) -> None:
    good, failed = expected(acknowledge, policy)
    account = {name: count for name, count in report.account.as_dict().items() if count}
    if policy == "stop":
        # Of two batches under way, either may be the first to stop the run.
        assert report.outcome == "stopped" and ("bad 6" in report.error or "bad 13" in report.error)
    else:
        assert report.outcome == "done"
        assert account == {"read": COUNT, "written": len(good), OUTCOMES[policy]: failed}


@every
@way
@how
@pytest.mark.parametrize(("concurrency", "ordered"), [(1, True), (3, True), (3, False)])
async def test_a_batch_function(
    tmp_path: Path, acknowledge: Acknowledge, policy: Policy, tells: str, concurrency: int, ordered: bool
) -> None:
    async def work(records: list[int]) -> list[Any]:
        await anyio.sleep(0.003 if records[0] % 8 == 0 else 0.001)
        if tells == "that" and BAD & set(records):
            raise ValueError(f"bad {min(BAD & set(records))}")
        return [Failed(n, f"bad {n}") if n in BAD else n for n in records]

    sink = PlainListSink(name="out")
    pipeline = (
        Pipeline("p", checkpoint={"path": str(tmp_path / "state.db")})
        | ListSource(records=list(range(COUNT)))
        | batchers.Fixed(size=SIZE)
        | processors.Call(
            work,
            batch=True,
            concurrency=concurrency,
            ordered=ordered,
            acknowledge=acknowledge,
            on_failure=policy,
            retry=Retry(attempts=2, backoff=0.001),
        )
        | sink
    )
    report = await pipeline.supervisor().run()
    good, _ = expected(acknowledge, policy)
    check(report, acknowledge, policy)
    if ordered:
        assert sink.records == good
    elif policy == "stop":
        assert set(good) - set(range(4, 8)) <= set(sink.records) | set(range(4))
        assert not BAD & set(sink.records) and len(sink.records) == len(set(sink.records))
    else:
        assert sorted(sink.records) == good


@every
@way
@how
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_sink(tmp_path: Path, acknowledge: Acknowledge, policy: Policy, tells: str, concurrency: int) -> None:
    written: list[int] = []

    class Refusing(Writer):
        async def write(self, batch: Batch) -> None:
            await anyio.sleep(0.003 if batch.records[0] % 8 == 0 else 0.001)
            bad = {place: ValueError(f"bad {n}") for place, n in enumerate(batch.records) if n in BAD}
            if bad:
                raise RecordErrors(bad) if tells == "which" else next(iter(bad.values()))
            written.extend(batch.records)

    pipeline = (
        Pipeline("p", checkpoint={"path": str(tmp_path / "state.db")})
        | ListSource(records=list(range(COUNT)))
        | batchers.Fixed(size=SIZE)
        | Writes(
            Refusing(),
            name="out",
            concurrency=concurrency,
            acknowledge=acknowledge,
            on_failure=policy,
            retry=Retry(attempts=2, backoff=0.001),
        )
    )
    report = await pipeline.supervisor().run()
    good, _ = expected(acknowledge, policy)
    check(report, acknowledge, policy)
    assert len(written) == len(set(written)) and not BAD & set(written)
    if concurrency == 1:
        assert written == good
    elif policy != "stop":
        assert sorted(written) == good


@settings(max_examples=80, deadline=None)
@given(
    some.sampled_from(["each", "all_or_nothing", "last_successful"]),
    some.integers(1, 30),
    some.sets(some.integers(0, 29), max_size=5),
    some.booleans(),
    some.integers(1, 3),
)
def test_every_record_ends_once_and_only_the_bad_fail_unless_all_do(
    acknowledge: Any, count: int, bad: set[int], tells: bool, attempts: int
) -> None:
    bad = {number for number in bad if number < count}

    async def body() -> None:
        def work(records: list[int]) -> list[Any]:
            if not tells and bad & set(records):
                raise ValueError("bad")
            return [Failed(n, "bad") if n in bad else n for n in records]

        clock = ManualClock()
        whole = Whole(work)
        spec = Works(whole, name="work", acknowledge=acknowledge, retry=Retry(attempts=attempts, backoff=1.0))
        started = run_of(spec, clock=clock, on_failure="skip")
        step = make_step(started, "work", spec, whole)
        batch, halt = await clock.finish(step.run(read(started, *range(count))))
        failed = set(range(count)) if bad and acknowledge == "all_or_nothing" else bad
        assert halt is None
        assert batch.records == [n for n in range(count) if n not in failed]
        started.ledger.settle(batch)
        assert started.ledger.account.skipped == len(failed) and started.ledger.unsettled == 0

    within(20, body)


async def test_under_last_successful_a_record_that_failed_is_tried_again_with_all_behind_it() -> None:
    calls: list[list[int]] = []

    def work(records: list[int]) -> list[Any]:
        calls.append(records)
        return [Failed(n, "bad") if n == 2 else n for n in records]

    clock = ManualClock()
    spec = Works(Whole(work), name="work", acknowledge="last_successful", retry=Retry(attempts=3, backoff=1.0))
    started = run_of(spec, clock=clock, on_failure="skip")
    batch, _ = await clock.finish(make_step(started, "work", spec, spec.work).run(read(started, *range(5))))
    assert calls == [[0, 1, 2, 3, 4], [2, 3, 4], [2, 3, 4], [3, 4]]
    assert batch.records == [0, 1, 3, 4]


async def test_what_a_function_could_not_reach_for_some_records_is_tried_again_for_these_alone() -> None:
    calls: list[list[int]] = []

    def work(records: list[int]) -> list[Any]:
        calls.append(records)
        away = {0: {1, 3}, 1: {3}}.get(len(calls) - 1, set[int]())
        return [Failed(n, Unavailable("away")) if n in away else n * 10 for n in records]

    clock = ManualClock()
    spec = Works(Whole(work), name="work", retry=Retry(attempts=3, backoff=1.0))
    started = run_of(spec, clock=clock)
    batch, _ = await clock.finish(make_step(started, "work", spec, spec.work).run(read(started, *range(5))))
    assert calls == [[0, 1, 2, 3, 4], [1, 3], [3]]
    assert batch.records == [0, 10, 20, 30, 40]
    assert started.metrics["work"].retries == 2


async def test_what_is_tried_again_waits_as_long_as_any_of_the_failures_asks_for() -> None:
    clock, calls = ManualClock(), list[tuple[float, list[int]]]()

    def work(records: list[int]) -> list[Any]:
        calls.append((clock.now(), records))
        asked = {1: 40.0, 3: 90.0} if len(calls) == 1 else {}
        return [Failed(n, Unavailable("busy", asked[n])) if n in asked else n for n in records]

    spec = Works(Whole(work), name="work", retry=Retry(attempts=2, backoff=1.0))
    started = run_of(spec, clock=clock)
    began = clock.now()
    await clock.finish(make_step(started, "work", spec, spec.work).run(read(started, *range(4))))
    assert [(at - began, records) for at, records in calls] == [(0, [0, 1, 2, 3]), (90, [1, 3])]


async def test_a_call_that_returns_got_through_for_the_breaker_too_whatever_its_results_say() -> None:
    def work(records: list[int]) -> list[Any]:
        return [Failed(n, ConnectionError("away")) for n in records]

    clock, breaker = ManualClock(), CircuitBreaker(failures=1, reset=60)
    spec = Works(Whole(work), name="work", retry=Retry(attempts=2), circuit_breaker=breaker)
    started = run_of(spec, clock=clock, on_failure="skip")
    batch, halt = await clock.finish(make_step(started, "work", spec, spec.work).run(read(started, 1, 2)))
    assert (batch.records, halt, started.metrics["work"].failed) == ([], None, {"skip": 2})
    assert (started.metrics["work"].retries, started.metrics["work"].breaker) == (1, "closed")


async def test_all_that_fail_with_one_record_say_which_one_it_was() -> None:
    def work(records: list[int]) -> list[Any]:
        return [Failed(n, "no such account") if n == 2 else n for n in records]

    spec = Works(Whole(work), name="work", acknowledge="all_or_nothing")
    started = run_of(spec, on_failure="collect")
    await make_step(started, "work", spec, spec.work).run(read(started, 1, 2, 3))
    errors = {each["record"]: each["error"] for each in started.collected}
    assert errors["2"] == "ValueError: no such account"
    assert errors["1"] == errors["3"] == "another record of its batch failed: ValueError: no such account"
