"""Runs that go on where others ended: by a limit, a failure, a cancellation, or at the end of the input."""

from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.errors import Exit, PipelineError
from stages import batchers, processors, sinks, sources
from tests.end_to_end.running import exactly, numbered, numbers_in, records_in

pytestmark = pytest.mark.anyio


def copying(folder: Path, *between: Any) -> Pipeline:
    """Return a pipeline from ``in.jsonl`` to ``out.jsonl``."""
    pipeline = exactly("copy", folder) | sources.Jsonl(path=str(folder / "in.jsonl")) | batchers.Fixed(size=50)
    for stage in between:
        pipeline |= stage
    return pipeline | sinks.Jsonl(path=str(folder / "out.jsonl"))


@pytest.mark.parametrize("limit", [1, 7, 50, 333, 999])
async def test_runs_of_a_few_records_each_make_the_whole(limit: int, tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 1_000)
    pipeline = copying(tmp_path)
    for _ in range(4):
        report = await pipeline.run(limit=limit)
        assert report.account.read == min(limit, 1_000 - report.total.read + report.account.read)
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(1_000))


async def test_a_finished_pipeline_reads_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 100)
    pipeline = copying(tmp_path)
    await pipeline.run()
    report = await pipeline.run()
    assert (report.account.read, report.total.read) == (0, 100)
    numbered(tmp_path / "in.jsonl", 20, first=100)
    report = await pipeline.run()
    assert (report.account.read, report.total.read) == (20, 120)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(120))


async def test_a_record_that_stopped_the_run_is_read_again_when_the_function_is_mended(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 500)
    broken = True

    def check(record: dict[str, Any]) -> dict[str, Any]:
        if broken and record["n"] == 321:
            raise ValueError("not this one")
        return record

    pipeline = copying(tmp_path, processors.Call(check))
    with pytest.raises(PipelineError, match=r"in\.jsonl:322 .*not this one") as failed:
        await pipeline.run()
    assert failed.value.exit_code == Exit.FAILED
    assert numbers_in(tmp_path / "out.jsonl") == list(range(321))
    broken = False
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(500))


async def test_a_run_that_is_cancelled_is_gone_on_with(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 3_000)
    came = anyio.Event()

    async def slow(records: list[Any]) -> list[Any]:
        if records[0]["n"] >= 1_000 and not came.is_set():
            came.set()
            await anyio.sleep_forever()
        return records

    pipeline = copying(tmp_path, processors.Call(slow, batch=True))
    async with anyio.create_task_group() as group:
        group.start_soon(pipeline.run)
        await came.wait()
        group.cancel_scope.cancel()
    assert len(numbers_in(tmp_path / "out.jsonl")) <= 1_000
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(3_000))


async def test_a_dead_letter_before_a_stop_is_no_record_after_it_and_the_other_way_round(tmp_path: Path) -> None:
    """Each record is in exactly one of sink and dead letters, even if the function changes its mind in between."""
    numbered(tmp_path / "in.jsonl", 400)
    bad = {10, 399}

    def check(record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] in bad:
            raise ValueError("bad")
        return record

    pipeline = copying(tmp_path, processors.Call(check, on_failure="dead_letter"))
    first = await pipeline.run(limit=200)
    bad = {5, 300}
    second = await pipeline.run()
    assert (first.account.dead_lettered, second.account.dead_lettered, second.dead_letters) == (1, 1, 2)
    assert numbers_in(tmp_path / "out.jsonl") == [n for n in range(400) if n not in (10, 300)]


async def test_a_table_is_gone_on_with_too(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 600)
    pipeline = (
        exactly("rows", tmp_path)
        | sources.Jsonl(path=str(tmp_path / "in.jsonl"))
        | batchers.Fixed(size=70)
        | sinks.Sqlite(path=str(tmp_path / "out.db"), table="numbers")
    )
    for limit in (100, 135, None):
        await pipeline.run(limit=limit)
    with closing(connect(tmp_path / "out.db")) as connection:
        assert connection.execute("SELECT n FROM numbers ORDER BY rowid").fetchall() == [(n,) for n in range(600)]


async def test_what_was_deduplicated_before_a_stop_is_known_after_it(tmp_path: Path) -> None:
    for _ in range(3):
        numbered(tmp_path / "in.jsonl", 100)
    pipeline = copying(tmp_path, processors.Dedupe(by="n"))
    await pipeline.run(limit=150)
    report = await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(100))
    assert report.total.filtered == 200


async def test_a_config_may_change_in_between_and_that_is_said(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 300)
    await copying(tmp_path).run(limit=100)
    report = await copying(tmp_path, processors.Map(set={"twice": "n * 2"})).run()
    assert any("map" in note and "added" in note for note in report.notes)
    found = records_in(tmp_path / "out.jsonl")
    assert [record["n"] for record in found] == list(range(300))
    assert found[99] == {"n": 99}
    assert found[100] == {"n": 100, "twice": 200}
