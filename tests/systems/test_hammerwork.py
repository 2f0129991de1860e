"""Rows H of the checklist: what the system "Hammerwork batch operations" promises."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import Failed, Pipeline, PipelineError
from pipeline.testing import ListSource, ManualClock, PlainListSink
from stages import batchers, processors, sinks, sources
from tests.systems.command import ROOT, command
from tests.systems.counting import Statements
from tests.systems.virtual import Service, run

pytestmark = pytest.mark.anyio


async def test_h1_a_bulk_insert_takes_many_rows_a_statement_and_keeps_to_the_limit_on_its_parameters(
    tmp_path: Path, statements: Statements
) -> None:
    """A batch is inserted in bulk, and no limit of the database on parameters a statement bounds its size."""
    path = tmp_path / "jobs.db"
    # 2,000 rows of 40 columns are 80,000 parameters; SQLite allows 32,766 in a statement.
    records: list[dict[str, Any]] = [{f"c{column}": n * column for column in range(40)} for n in range(2000)]
    pipeline = (
        Pipeline("jobs", checkpoint="none")
        | records
        | batchers.Fixed(size=2000)
        | sinks.Sqlite(path=str(path), table="jobs")
    )

    await pipeline.run()

    bulks = statements.rows_of("jobs")
    assert sum(bulks) == 2000
    assert min(bulks) > 1
    assert len(bulks) < 200
    assert all(rows * 40 <= 999 for rows in bulks)
    assert statements.singles_of("jobs") == []
    assert rows_in(path, "SELECT count(*), sum(c39) FROM jobs") == [(2000, 39 * 1999 * 1000)]


async def test_h2_a_batch_is_written_wholly_or_not_at_all(tmp_path: Path, statements: Statements) -> None:
    """A write that breaks off in the midst of a batch leaves none of its rows, and the batch goes in once later."""
    (tmp_path / "jobs.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1000)))
    path = tmp_path / "jobs.db"
    pipeline = (
        Pipeline("jobs", checkpoint={"path": str(tmp_path / "state.db")})
        | sources.Jsonl(path=str(tmp_path / "jobs.jsonl"))
        | batchers.Fixed(size=100)
        | sinks.Sqlite(path=str(path), table="jobs", acknowledge="all_or_nothing")
    )
    statements.break_into("jobs", 3)

    with pytest.raises(PipelineError, match="database is locked") as stopped:
        await pipeline.run()
    assert stopped.value.exit_code == 1
    assert rows_in(path, "SELECT count(*) FROM jobs") == [(200,)]

    await pipeline.run()
    assert rows_in(path, "SELECT count(*), count(DISTINCT n), sum(n) FROM jobs") == [(1000, 1000, 499_500)]


async def test_h5_metadata_of_a_run_is_on_its_batches_dead_letters_logs_and_metrics(tmp_path: Path) -> None:
    """Campaign, department, who started it: functions, dead letters, the start's log line and the metrics have it."""
    (tmp_path / "steps.py").write_text(
        "def send(record, *, context):\n"
        "    if record['n'] == 3:\n"
        "        raise ValueError('no such address')\n"
        "    return {**record, 'campaign': context.metadata['campaign']}\n"
    )
    (tmp_path / "mails.yaml").write_text(MAILS)

    ended = command(tmp_path, "run", "mails.yaml", "--log", "json", "--set", "metadata.campaign=autumn")
    shown = command(tmp_path, "dlq", "show", "mails.yaml", "1")

    assert ended.code == 0, ended.err
    assert ended.event("started")["metadata"] == {"campaign": "autumn", "department": "sales", "part": 2}
    assert all('"campaign":"autumn"' in line for line in (tmp_path / "sent.jsonl").read_text().splitlines())
    assert 'metadata: {"campaign": "autumn", "department": "sales", "part": 2}' in shown.out
    assert 'campaign="autumn",department="sales",part="2"} 1\n' in (tmp_path / "metrics.txt").read_text()


MAILS = """
name: mails
on_failure: dead_letter
metadata: {campaign: spring, department: sales, part: 2}
metrics: {push: [sh, -c, "cat > metrics.txt"]}
stages:
  - source: generate
    with: {count: 10}
  - batcher: fixed
    with: {size: 4}
  - processor: call
    with: {function: "steps:send"}
  - sink: jsonl
    with: {path: sent.jsonl}
"""


async def test_h15_each_stage_tells_what_it_processed_its_success_rate_and_its_average_time() -> None:
    """Records taken, the share that did not fail, and the mean seconds of a batch, for each stage, live and after."""
    clock = ManualClock()

    async def work(records: list[int]) -> list[int | Failed]:
        await clock.sleep(0.5)
        return [Failed(n, ValueError("no")) if n % 4 == 0 else n for n in records]

    pipeline = (
        Pipeline("jobs", on_failure="skip")
        | list(range(1000))
        | batchers.Fixed(size=100)
        | processors.Call(work, batch=True, name="work")
        | sinks.Discard()
    )
    report = await run(pipeline, clock)

    stages = {stage.name: stage for stage in report.stages}
    assert (stages["work"].records_in, stages["work"].batches) == (1000, 10)
    assert stages["work"].success_rate == 0.75
    assert stages["work"].mean_seconds == pytest.approx(0.5)  # pyright: ignore[reportUnknownMemberType]
    assert (stages["discard"].records_in, stages["discard"].success_rate) == (750, 1)


async def test_h16_statistics_of_a_window_of_an_hour_are_total_average_batch_and_error_rate() -> None:
    """What was processed in the last hour, the average batch of it, and its error rate, not those of the whole run."""
    clock = ManualClock()

    async def hours() -> AsyncIterator[list[int]]:
        for hour in range(3):
            for _ in range(60):
                await clock.sleep(60)
                for n in range(10):
                    yield [hour, n]

    def work(record: list[int]) -> list[int]:
        if record[0] == 2 and record[1] < 5:
            raise ValueError("the third hour is a bad one")
        return record

    pipeline = Pipeline("jobs", on_failure="skip") | hours() | batchers.Fixed(size=5) | processors.Call(work)
    supervisor = (pipeline | sinks.Discard()).supervisor(clock=clock)
    report = await clock.finish(supervisor.run(), within=20_000)

    hour, minute = supervisor.lately(3600), supervisor.status().lately
    assert hour.seconds == pytest.approx(3600, abs=2)  # pyright: ignore[reportUnknownMemberType]
    assert (hour.ended, hour.failed, hour.error_rate, hour.average_batch) == (600, 300, 0.5, 5)
    assert minute.seconds == pytest.approx(60, abs=2)  # pyright: ignore[reportUnknownMemberType]
    assert report.account.skipped / report.account.read == pytest.approx(1 / 6)  # pyright: ignore[reportUnknownMemberType]


async def test_h19_a_thousand_records_are_ten_calls(tmp_path: Path, statements: Statements) -> None:
    """Batches of 100 turn 1,000 calls of a function into 10, and 1,000 inserts into 10 transactions."""
    clock = ManualClock()
    service = Service(clock)
    pipeline = (
        Pipeline("jobs", checkpoint="none")
        | [{"n": n} for n in range(1000)]
        | batchers.Fixed(size=100)
        | processors.Call(service.take, batch=True)
        | sinks.Sqlite(path=str(tmp_path / "jobs.db"), table="jobs")
    )

    await pipeline.run()

    assert service.sizes == [100] * 10
    assert len(statements.transactions_of("jobs")) == 10


async def test_h20_batches_bounded_in_bytes_hold_no_more_however_large_their_records_are(tmp_path: Path) -> None:
    """``max_bytes`` bounds what a batch holds, where a count of records would not."""
    (tmp_path / "jobs.jsonl").write_text("".join(f'{{"n": {n:3}, "text": "{"x" * 4074}"}}\n' for n in range(600)))
    sizes: list[int] = []

    def measure(records: list[Any]) -> list[Any]:
        sizes.append(len(records))
        return records

    pipeline = (
        Pipeline("bounded")
        | sources.Jsonl(path=str(tmp_path / "jobs.jsonl"))
        | batchers.Fixed(size=100, max_bytes="128KiB")
        | processors.Call(measure, batch=True)
        | sinks.Discard()
    )

    report = await pipeline.run()

    assert report.account.written == 600
    # Each line is 4 KiB: a hundred of them would be 400.
    assert 28 <= max(sizes) <= 32


def test_h20_smaller_batches_make_the_stated_worst_case_smaller(tmp_path: Path) -> None:
    """``check`` states the memory held at worst, and it falls with the bytes of a batch."""
    (tmp_path / "jobs.yaml").write_text(JOBS)

    stated = [
        json.loads(
            command(tmp_path, "check", "jobs.yaml", "--json", "--set", f"stages.fixed.with.max_bytes={size}").out
        )
        for size in ("8MiB", "2MiB")
    ]

    large, small = (each["files"][0]["plan"]["memory"]["bytes"] for each in stated)
    assert large - small == 6 * 2**20


JOBS = """
name: jobs
stages:
  - source: jsonl
    with: {path: jobs.jsonl}
  - batcher: fixed
    with: {size: 100}
  - sink: jsonl
    with: {path: done.jsonl}
"""


@pytest.mark.parametrize(("slow", "named"), [("score", "processor 'score'"), ("store", "processor 'store'")])
async def test_h21_the_report_says_why_it_is_slow(slow: str, named: str) -> None:
    """The report names the stage that held up the others, and those that waited for it."""
    clock = ManualClock()
    seconds = {"score": 0.01, "store": 0.01, slow: 1.0}
    score, store = (Service(clock, seconds[name]) for name in ("score", "store"))
    pipeline = (
        Pipeline("slow")
        | ListSource(records=list(range(2000)), chunk=10)
        | batchers.Fixed(size=10)
        | processors.Call(score.take, batch=True, name="score")
        | processors.Call(store.take, batch=True, name="store")
        | sinks.Discard()
    )

    report = await run(pipeline, clock)

    assert report.bottleneck.startswith(f"{named} worked "), report.bottleneck
    assert report.bottleneck.endswith("waited to send"), report.bottleneck


async def test_h21_a_source_that_gives_little_is_told_apart_from_a_slow_stage() -> None:
    """Where a source keeps to a rate and the stages wait for records, no stage is blamed."""
    clock = ManualClock()
    service = Service(clock, 0.01)
    pipeline = (
        Pipeline("idle")
        | sources.Generate(count=50, rate=5.0)
        | batchers.Fixed(size=5)
        | processors.Call(service.take, batch=True)
        | sinks.Discard()
    )

    report = await run(pipeline, clock)

    assert report.bottleneck == "nothing: the stages mostly wait for records"


def rows_in(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def send(record: int) -> int:
    """Fail for each seventh."""
    if record % 7 == 3:
        raise ValueError(f"bounced: {record}")
    return record


async def mailed(on_failure: Any) -> tuple[Any, list[int]]:
    """Return the report of mailing thirty, and who got it."""
    sink = PlainListSink()
    pipeline = (
        Pipeline("mail", checkpoint="none", on_failure=on_failure)
        | ListSource(records=list(range(30)))
        | processors.Call(send, name="send")
        | sink
    )
    return await run(pipeline, ManualClock()), sink.records


async def test_h7_continue_on_error_is_skip() -> None:
    """``on_failure: skip`` goes on with the others and counts what failed."""
    report, got = await mailed("skip")
    assert got == [n for n in range(30) if n % 7 != 3]
    assert report.exit_code == 0 and report.account.skipped == 4 and report.errors == []


async def test_h8_fail_fast_is_stop() -> None:
    """``on_failure: stop`` ends with the first failure; what came before it is written, nothing behind it."""
    report, got = await mailed("stop")
    assert got == [0, 1, 2]
    assert report.exit_code == 1 and "bounced: 3" in report.error and report.account.written == 3


async def test_h9_collect_errors_is_collect() -> None:
    """``on_failure: collect`` goes on and lists every error with its record in the report."""
    report, got = await mailed("collect")
    assert got == [n for n in range(30) if n % 7 != 3]
    assert {each["record"]: each["error"].partition(" (")[0] for each in report.errors} == {
        str(n): f"ValueError: bounced: {n}" for n in (3, 10, 17, 24)
    }


@pytest.mark.parametrize("size", [10, 25, 50, 100, 1000])
async def test_h4_a_size_for_each_kind_of_work_is_in_the_docs_and_kept(size: int) -> None:
    """The manual says which fixed size is for what; each of them is the size of every batch but the last."""
    manual = (ROOT / "README.md").read_text()
    advice = next(line for line in manual.splitlines() if "quick functions" in line)
    assert str(size) in re.findall(r"\d+", advice)
    clock = ManualClock()
    service = Service(clock, fixed=0.01)
    pipeline = (
        Pipeline("sizes")
        | ListSource(records=list(range(2 * size + 3)), chunk=500)
        | batchers.Fixed(size=size)
        | processors.Call(service.take, batch=True)
        | sinks.Discard()
    )

    await run(pipeline, clock)

    assert service.sizes == [size, size, 3]
