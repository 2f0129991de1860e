"""Rows D of the checklist: what the system "Day 38, batching task executions" promises."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.batch import Failed
from pipeline.errors import Unavailable
from pipeline.stage import Retry
from pipeline.testing import ListSource, ManualClock, PlainListSink, Wait
from stages import batchers, processors, sinks, sources
from tests.systems.counting import Statements
from tests.systems.virtual import run, serve

pytestmark = pytest.mark.anyio


async def test_d1_a_batch_goes_at_100_records_or_3000_ms_after_its_oldest_whichever_is_first() -> None:
    """A batch is flushed when it holds 100 records, or when its oldest record has waited for 3,000 ms."""
    records = [*range(100), *range(5), Wait(2), *range(5), Wait(60), *range(3), Wait(60), 1]

    service = await serve(records, batchers.Fixed(size=100, linger=3.0))

    # The one that came after two minutes is sent by the end of the input, at once.
    assert [(call.began, call.size) for call in service.calls] == [(0, 100), (3, 10), (65, 3), (122, 1)]


async def test_d1_the_adaptive_batcher_keeps_both_bounds() -> None:
    """A batch is flushed at ``max_size`` records, and early enough to be worked on within the target latency."""
    trickle = [each for number in range(100) for each in (number, Wait(0.1))]
    batcher = batchers.Adaptive(target_latency=3.0, min_size=100, max_size=100)

    service = await serve([*trickle, Wait(60), *range(250)], batcher, fixed=1.0)

    assert service.sizes[-3:] == [100, 100, 50]
    trickled = service.calls[:-3]
    # Record k came after k tenths of a second; one batch each would be a hundred.
    assert max(call.ended - number / 10 for call in trickled for number in call.records) <= 3.0
    assert len(trickled) <= 10


async def test_d3_four_batches_are_worked_on_at_a_time() -> None:
    """``concurrency: 4`` keeps four batches under way at a time, without a thread for any of them."""
    service = await serve(list(range(900)), batchers.Fixed(size=100), fixed=1.0, concurrency=4)

    # The first goes alone, since nobody knows yet how many are needed; then four at a time.
    assert service.at_once == 4
    assert service.calls[-1].ended == 3.0


async def test_d4_rows_go_to_the_database_a_batch_a_statement_and_in_the_order_of_their_key(
    tmp_path: Path, statements: Statements
) -> None:
    """A batch of 100 is one bulk insert in one transaction, and ``order_by`` sorts its rows by their key."""
    path = tmp_path / "tasks.db"
    records: list[dict[str, Any]] = [{"id": number * 37 % 1000, "kind": "email"} for number in range(1000)]
    pipeline = (
        Pipeline("tasks", checkpoint={"path": str(tmp_path / "state.db")})
        | records
        | batchers.Fixed(size=100, order_by="id")
        | sinks.Sqlite(path=str(path), table="tasks")
    )

    await pipeline.run()

    assert statements.rows_of("tasks") == [100] * 10
    with closing(sqlite3.connect(path)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM tasks ORDER BY rowid")]
    assert sorted(ids) == list(range(1000))
    batches = [ids[start : start + 100] for start in range(0, 1000, 100)]
    assert batches == [sorted(batch) for batch in batches]
    assert ids != sorted(ids)


async def test_d6_a_batch_that_is_stuck_is_tried_again_after_its_timeout_and_somebody_is_told() -> None:
    """``timeout`` ends an attempt that hangs and ``retry`` makes the next; a frontier that stands still is an alert."""
    calls: list[int] = []
    told: list[dict[str, Any]] = []

    async def deliver(tasks: list[int]) -> list[int]:
        calls.append(len(tasks))
        if len(calls) == 2:
            await anyio.sleep_forever()
        return tasks

    pipeline = (
        Pipeline("tasks", alerts={"stalled": "500ms"})
        | list(range(300))
        | batchers.Fixed(size=100)
        | processors.Call(deliver, batch=True, name="deliver", timeout="1.5s", retry=Retry(attempts=2, backoff="1ms"))
        | sinks.Discard()
    )
    report = await pipeline.run(
        subscribers=[lambda name, fields: told.append(dict(fields)) if name == "alert" else None]
    )

    assert calls == [100, 100, 100, 100]
    assert (report.account.written, report.outcome) == (300, "done")
    raised, cleared = told
    assert (raised["state"], raised["stage"], raised["batch"]) == ("raised", "deliver", 100)
    assert raised["position"].endswith("record 100")
    assert 0.5 <= raised["age"] <= 1.5
    assert cleared["state"] == "cleared"


async def test_d2_three_retries_are_four_attempts_and_no_more() -> None:
    """``retry: {attempts: 4}`` is a first attempt and three retries; then ``on_failure`` has it."""
    calls: list[int] = []

    def work(record: int) -> int:
        calls.append(record)
        raise ValueError("never")

    pipeline = (
        Pipeline("retries", checkpoint="none", on_failure="skip")
        | ListSource(records=[1])
        | processors.Call(work, retry=Retry(attempts=4, backoff=1.0))
        | sinks.Discard()
    )
    report = await run(pipeline, ManualClock())

    assert calls == [1] * 4
    assert report.account.skipped == 1


async def test_d5_of_a_batch_that_failed_in_part_only_that_part_is_tried_again() -> None:
    """Results say which records failed; these alone are tried again, and order is kept."""
    calls: list[list[int]] = []

    def work(records: list[int]) -> list[Any]:
        calls.append(records)
        first = len(calls) == 1
        return [Failed(n, Unavailable()) if first and n % 10 == 3 else n for n in records]

    sink = PlainListSink()
    pipeline = (
        Pipeline("parts", checkpoint="none")
        | ListSource(records=list(range(100)), chunk=100)
        | batchers.Fixed(size=100)
        | processors.Call(work, batch=True, retry=Retry(attempts=3, backoff=1.0))
        | sink
    )
    report = await run(pipeline, ManualClock())

    assert calls == [list(range(100)), [3, 13, 23, 33, 43, 53, 63, 73, 83, 93]]
    assert sink.records == list(range(100)) and report.account.written == 100


async def test_d12_a_hundred_tasks_of_2_ms_are_some_13_times_as_fast_in_one_batch() -> None:
    """100 tasks at 2 ms each are 200 ms one by one, and 15 ms as a batch."""
    records = list(range(100))

    single = await serve(records, batchers.Fixed(size=1), fixed=0.002)
    batched = await serve(records, batchers.Fixed(size=100), fixed=0.015)

    alone = single.calls[-1].ended - single.calls[0].began
    together = batched.calls[-1].ended - batched.calls[0].began
    assert [alone, together] == pytest.approx([0.2, 0.015])
    assert alone / together > 13


async def test_d12_more_than_1000_tasks_a_second_and_100_of_them_in_200_ms() -> None:
    """By the clock, with tasks that take 2 ms and four batches of 100 at a time; the best of a few runs."""

    async def work(records: list[int]) -> list[int]:
        await anyio.sleep(0.002)
        return records

    async def seconds(records: int) -> float:
        pipeline = (
            Pipeline("tasks", checkpoint="none")
            | sources.Iterable(range(records))
            | batchers.Fixed(size=100)
            | processors.Call(work, batch=True, concurrency=4)
            | sinks.Discard()
        )
        began = time.perf_counter()
        report = await pipeline.run()
        assert report.account.written == records
        return time.perf_counter() - began

    assert min([await seconds(100) for _ in range(5)]) < 0.2
    assert 10_000 / min([await seconds(10_000) for _ in range(3)]) > 1000


async def test_d12_95_of_100_tasks_are_done_within_5_seconds_of_their_coming() -> None:
    """A burst of 10,000 tasks, 100 a batch, four batches at a time: from coming to done, in virtual time."""
    service = await serve(list(range(10_000)), batchers.Fixed(size=100), fixed=0.1, each=0.0005, concurrency=4)

    waits = sorted(call.ended for call in service.calls for _ in call.records)
    assert len(waits) == 10_000
    assert waits[9_500 - 1] < 5


TASKS = """
import asyncio
from pathlib import Path
from pipeline import Pipeline
from stages import batchers, processors, sinks, sources

tasks = ({"n": n, "text": "x" * 1000} for n in range(10_000))
pipeline = (
    Pipeline("tasks", checkpoint="none")
    | sources.Iterable(tasks)
    | batchers.Fixed(size=100)
    | processors.Call(lambda records: records, batch=True)
    | sinks.Collect()
)
print(len(asyncio.run(pipeline.run()).records))
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't say what a process held")
def test_d12_10000_tasks_take_less_than_512_mb(tmp_path: Path) -> None:
    """All 10,000 are held at once, a kilobyte each, and what the process held at its most is far below."""
    ended = subprocess.run([sys.executable, "-c", TASKS], cwd=tmp_path, capture_output=True, text=True, timeout=30)

    count, peak = ended.stdout.splitlines()
    assert count == "10000"
    assert int(peak.split()[1]) < 512 * 1024
