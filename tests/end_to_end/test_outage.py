"""A dependency that is down for a while: what is held, what is blamed, and what a stop does in the middle of it."""

import json
import random
import signal
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline, Report
from pipeline.batch import Batch
from pipeline.errors import Unavailable
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import CircuitBreaker, RateLimit, Retry, Writer
from pipeline.testing import ListSink, ListSource, ManualClock, PlainListSink, Wait
from stages import batchers, processors, sinks
from tests.flow.driving import Writes
from tests.systems.command import command, start

pytestmark = pytest.mark.anyio

RETRY = Retry(attempts=3, backoff=(0.1, 1.0))
MANY = Retry(attempts=60, backoff=(0.01, 0.5))
BREAKER = CircuitBreaker(failures=5, reset=5.0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Down(Writer):
    """A sink that can't be reached while ``away`` says so; counts the calls that it was made meanwhile."""

    def __init__(self, clock: ManualClock, away: Callable[[float], bool]) -> None:
        self.clock = clock
        self.away = away
        self.written: list[int] = []
        self.in_vain: list[float] = []

    async def write(self, batch: Batch) -> None:
        await self.clock.sleep(0.01)
        if self.away(self.clock.now()):
            self.in_vain.append(self.clock.now())
            raise Unavailable("connection refused")
        self.written.extend(batch.records)


class Flaky(Writer):
    """A sink that fails in some of its calls."""

    def __init__(self, fails: Callable[[], bool]) -> None:
        self.fails = fails
        self.written: list[int] = []

    async def write(self, batch: Batch) -> None:
        if self.fails():
            raise Unavailable("not now")
        self.written.extend(batch.records)


async def run(pipeline: Pipeline, clock: ManualClock) -> Report:
    return await clock.finish(pipeline.supervisor(clock=clock).run())


def breaker_of(supervisor: Supervisor, stage: str = "out") -> str:
    return next(each.breaker for each in supervisor.status().stages if each.name == stage)


def trickle(count: int) -> list[Any]:
    return [each for n in range(count) for each in (n, Wait(0.01))]


@pytest.mark.parametrize("retry", [None, RETRY, Retry(attempts=50, backoff=1.0)], ids=["none", "few", "many"])
@pytest.mark.parametrize("size", [1, 10, 100])
async def test_a_sink_that_is_down_for_a_minute_pauses_the_source_and_then_gets_all_in_order(
    retry: Retry | None, size: int
) -> None:
    clock = ManualClock()
    sink = Down(clock, lambda now: 1.0 < now < 61.0)
    pipeline = (
        Pipeline("outage", checkpoint="none", on_failure="skip")
        | ListSource(records=trickle(3000))
        | batchers.Fixed(size=size, linger=0.05)
        | Writes(sink, name="out", retry=retry, circuit_breaker=BREAKER)
    )
    supervisor = pipeline.supervisor(clock=clock)
    read: list[int] = []

    async def watch() -> None:
        await clock.sleep(30.0)
        for _ in range(3):
            await clock.sleep(9.7)
            read.append(supervisor.status().account.read)
            assert breaker_of(supervisor) == "open"

    reports: list[Report] = []

    async def run_it() -> None:
        reports.append(await clock.finish(supervisor.run()))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        group.start_soon(run_it)
    (report,) = reports
    assert read[0] == read[-1] < 3000
    assert report.account.as_dict() == {**dict.fromkeys(report.account.as_dict(), 0), "read": 3000, "written": 3000}
    assert sink.written == list(range(3000))
    # Once it is open there is one call each 5 seconds.
    later = [at for at in sink.in_vain if at > 10]
    assert all(after - before >= 5.0 for before, after in pairwise(later))
    assert breaker_of(supervisor) == "closed"


async def test_with_a_breaker_a_drain_in_the_middle_ends_at_once_and_the_next_run_delivers_the_rest(
    tmp_path: Path,
) -> None:
    down = True

    async def reach(records: list[int]) -> list[int]:
        if down:
            raise Unavailable("connection refused")
        return records

    sink = ListSink()
    pipeline = (
        Pipeline("drained", checkpoint={"path": str(tmp_path / "state.db"), "interval": 0.01}, drain="5s")
        | ListSource(records=list(range(500)))
        | batchers.Fixed(size=50)
        | processors.Call(
            reach, batch=True, name="out", concurrency=3, circuit_breaker=CircuitBreaker(failures=2, reset="1h")
        )
        | sink
    )

    def stop(name: str, fields: Mapping[str, Any]) -> None:
        if name == "breaker":
            supervisor.drain()

    supervisor: Supervisor = pipeline.supervisor(subscribers=(stop,))
    with anyio.fail_after(4):
        report = await supervisor.run()
    assert report.outcome == "interrupted" and report.account.dead_lettered == 0
    assert report.account.unsettled == report.account.read - len(sink.records)
    down = False
    assert (await pipeline.run()).outcome == "done"
    assert sink.records == list(range(500))


async def test_without_a_breaker_the_run_ends_and_nothing_is_blamed() -> None:
    clock = ManualClock()
    sink = Down(clock, lambda now: now > 1.0)
    pipeline = (
        Pipeline("stopped", checkpoint="none", on_failure="skip")
        | ListSource(records=trickle(1000))
        | batchers.Fixed(size=10)
        | Writes(sink, name="out", retry=RETRY)
    )
    report = await run(pipeline, clock)
    assert report.outcome == "stopped" and "Unavailable: connection refused" in report.error
    assert report.account.skipped == 0
    assert sink.written == list(range(len(sink.written)))


@pytest.mark.parametrize("error", [ValueError, Unavailable])
@pytest.mark.parametrize("bad", [0, 1, 499, 500, 999])
async def test_one_bad_record_of_a_thousand_costs_22_calls_at_most_and_opens_no_breaker(
    tmp_path: Path, error: type[Exception], bad: int
) -> None:
    calls = 0

    def work(records: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if bad in records:
            raise error("poisoned")
        return records

    sink = ListSink()
    pipeline = (
        Pipeline("poisoned", checkpoint={"path": str(tmp_path / "state.db")})
        | ListSource(records=list(range(1000)), chunk=1000)
        | batchers.Fixed(size=1000)
        | processors.Call(
            work,
            batch=True,
            name="out",
            on_failure="dead_letter",
            circuit_breaker=CircuitBreaker(failures=5, reset="1h"),
        )
        | sink
    )
    supervisor = pipeline.supervisor()
    report = await supervisor.run()
    assert report.account.dead_lettered == 1 and report.dead_letters == 1
    assert sink.records == [number for number in range(1000) if number != bad]
    assert calls <= 22
    assert breaker_of(supervisor) == "closed"


@pytest.mark.parametrize("form", ["each", "each async", "each async, several"])
@pytest.mark.parametrize("breaker", [None, BREAKER])
async def test_a_record_that_alone_can_not_be_reached_is_at_fault(form: str, breaker: CircuitBreaker | None) -> None:
    clock = ManualClock()

    def work(record: int) -> int:
        if record in (7, 20):
            raise Unavailable("never")
        return record

    async def work_async(record: int) -> int:
        await clock.sleep(0.1)
        return work(record)

    sink = PlainListSink()
    pipeline = (
        Pipeline("alone", checkpoint="none", on_failure="skip")
        | ListSource(records=list(range(40)))
        | processors.Call(
            work if form == "each" else work_async,
            concurrency=4 if "several" in form else 1,
            retry=RETRY,
            circuit_breaker=breaker,
        )
        | sink
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done" and report.account.skipped == 2
    assert sink.records == [number for number in range(40) if number not in (7, 20)]


@pytest.mark.parametrize("form", ["each", "each async", "each async, several", "batch", "batches"])
async def test_with_a_breaker_too_no_record_is_blamed_before_its_attempts_are_used_up(form: str) -> None:
    clock, chance = ManualClock(), random.Random(1)

    def work(record: Any) -> Any:
        if chance.random() < 0.45:
            raise Unavailable("not now")
        return record

    async def work_async(record: Any) -> Any:
        await clock.sleep(0.05 * chance.random())
        return work(record)

    sink = PlainListSink()
    pipeline = (
        Pipeline("random", checkpoint="none", on_failure="skip")
        | ListSource(records=list(range(2000)), chunk=64)
        | batchers.Fixed(size=20)
        | processors.Call(
            work if form == "each" else work_async,
            batch="batch" in form,
            concurrency=4 if form in ("batches", "each async, several") else 1,
            retry=MANY,
            circuit_breaker=CircuitBreaker(failures=2, reset=5.0),
        )
        | sink
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done" and report.account.skipped == 0
    assert sink.records == list(range(2000))


async def test_a_sink_that_fails_at_random_gets_all_in_order_behind_its_breaker() -> None:
    clock, chance = ManualClock(), random.Random(1)
    sink = Flaky(lambda: chance.random() < 0.45)
    pipeline = (
        Pipeline("random", checkpoint="none", on_failure="skip")
        | ListSource(records=list(range(2000)), chunk=64)
        | batchers.Fixed(size=20)
        | Writes(sink, name="out", retry=MANY, circuit_breaker=CircuitBreaker(failures=2, reset=5.0))
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done" and report.account.skipped == 0
    assert sink.written == list(range(2000))


@pytest.mark.parametrize("form", ["each", "each async", "each async, several", "batch", "sink"])
@pytest.mark.parametrize("bad", [0, 13, 39])
async def test_a_bad_record_among_good_ones_has_its_attempts_and_opens_no_breaker(form: str, bad: int) -> None:
    clock = ManualClock()
    tries = 0

    def work(given: Any) -> Any:
        nonlocal tries
        found = bad in (given if form in ("batch", "sink") else [given])
        tries += found
        if found:
            raise Unavailable("never")
        return given

    async def work_async(given: Any) -> Any:
        await clock.sleep(0.01)
        return work(given)

    class Refuses(Writer):
        async def write(self, batch: Batch) -> None:
            work(batch.records)

    policy: dict[str, Any] = {"retry": Retry(attempts=20, backoff=0.1), "circuit_breaker": BREAKER, "name": "out"}
    concurrency = 4 if "several" in form else 1
    call = processors.Call(
        work if form == "each" else work_async, batch=form == "batch", concurrency=concurrency, **policy
    )
    head = (
        Pipeline("bad", checkpoint="none", on_failure="skip")
        | ListSource(records=list(range(60)), chunk=60)
        | batchers.Fixed(size=60)
    )
    pipeline = head | Writes(Refuses(), **policy) if form == "sink" else head | call | PlainListSink()
    told: list[str] = []
    supervisor = pipeline.supervisor(clock=clock, subscribers=(lambda name, _fields: told.append(name),))
    report = await clock.finish(supervisor.run())
    assert (report.outcome, report.account.skipped, tries) == ("done", 1, 20)
    assert breaker_of(supervisor) == "closed" and "breaker" not in told


@pytest.mark.parametrize("form", ["each", "each async", "each async, several", "batch", "batches"])
@pytest.mark.parametrize("attempts", [1, 4, 20])
async def test_no_record_is_blamed_for_an_outage_that_a_breaker_waits_out(form: str, attempts: int) -> None:
    clock = ManualClock()

    def work(record: Any) -> Any:
        if 1.0 < clock.now() < 61.0:
            raise Unavailable("away")
        return record

    async def work_async(record: Any) -> Any:
        await clock.sleep(0.05)
        return work(record)

    several = form in ("batches", "each async, several")
    sink = PlainListSink()
    pipeline = (
        Pipeline("held", checkpoint="none", on_failure="skip")
        | ListSource(records=trickle(400))
        | batchers.Fixed(size=10, linger=0.05)
        | processors.Call(
            work if form == "each" else work_async,
            batch="batch" in form,
            concurrency=4 if several else 1,
            retry=Retry(attempts=attempts, backoff=(0.1, 2.0)),
            circuit_breaker=BREAKER,
        )
        | sink
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done" and report.account.skipped == 0
    assert sink.records == list(range(400))
    assert clock.now() > 60


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_rate_holds_for_the_stage_whatever_its_concurrency_and_retries(concurrency: int) -> None:
    clock = ManualClock()
    calls: list[float] = []

    async def work(record: int) -> int:
        calls.append(clock.now())
        if len(calls) % 3 == 0:
            raise Unavailable("now and then")
        return record

    pipeline = (
        Pipeline("limited", checkpoint="none")
        | ListSource(records=list(range(60)))
        | processors.Call(
            work,
            concurrency=concurrency,
            retry=Retry(attempts=5, backoff=(0.01, 0.02)),
            rate_limit=RateLimit(rate=10.0, burst=3),
        )
        | sinks.Discard()
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done"
    assert len(calls) > 60
    for first, low in enumerate(calls):
        assert sum(low <= at < low + 1.0 for at in calls[first:]) <= 14
    assert clock.now() >= (len(calls) - 3) / 10 - 0.01


async def test_a_drain_leaves_what_waits_for_the_rate_unsettled_and_keeps_what_is_done() -> None:
    clock = ManualClock()
    sink = PlainListSink()
    pipeline = (
        Pipeline("limited", checkpoint="none", drain="5s")
        | ListSource(records=list(range(100)), chunk=100)
        | processors.Call(same, rate_limit=RateLimit(rate=1.0))
        | sink
    )
    supervisor = pipeline.supervisor(clock=clock)
    clock.call_at(9.5, supervisor.drain)
    report = await clock.finish(supervisor.run())
    assert report.outcome == "interrupted"
    assert sink.records == list(range(10))
    assert report.account.unsettled == 90
    assert clock.now() < 11


GATE = """
name: gate
stages:
  - source: generate
    with: {count: 1000}
  - batcher: fixed
    with: {size: 50}
  - processor: call
    with: {function: "gate:send", batch: true}
    retry: {attempts: 2, backoff: 1ms}
    circuit_breaker: {failures: 3, reset: 200ms}
    on_failure: dead_letter
  - sink: jsonl
    with: {path: out.jsonl}
"""
SEND = """
from pathlib import Path
def send(records):
    if records[0]["n"] >= 200 and not Path("up").exists():
        Path("down").touch()
        raise ConnectionError("refused")
    return records
"""


@pytest.mark.parametrize("stopped", [True, False])
def test_the_command_waits_an_outage_out_or_is_stopped_in_the_middle_of_it_and_loses_nothing(
    tmp_path: Path, stopped: bool
) -> None:
    (tmp_path / "gate.yaml").write_text(GATE)
    (tmp_path / "gate.py").write_text(SEND)
    process = start(tmp_path, "run", "gate.yaml", "--log", "json")
    until = time.monotonic() + 20
    while not (tmp_path / "down").exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.6)
    if stopped:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 143, process.communicate()[1]
    (tmp_path / "up").touch()
    process.communicate(timeout=20)
    if stopped:
        assert command(tmp_path, "run", "gate.yaml").code == 0
    else:
        assert process.returncode == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(1000))


def same(record: Any) -> Any:
    return record
