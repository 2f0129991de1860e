"""Rows D of the checklist: what the system "Day 38, batching task executions" promises."""

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.batch import Failed
from pipeline.errors import Unavailable
from pipeline.stage import Retry
from pipeline.testing import ListSource, ManualClock, PlainListSink, Wait
from stages import batchers, processors, sinks
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
    with sqlite3.connect(path) as connection:
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
