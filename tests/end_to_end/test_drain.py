"""A run that is stopped early finishes what is under way, in time, and the next one goes on behind it."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.errors import Exit, Unavailable
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import Retry
from stages import batchers, processors, sinks, sources
from tests.end_to_end.running import Gate, exactly, numbered, numbers_in, run_beside, standing, until

pytestmark = pytest.mark.anyio

COUNT = 5_000


async def test_a_drain_writes_what_was_read_and_a_later_run_the_rest(tmp_path: Path) -> None:
    gate = Gate()
    pipeline = (
        exactly("drained", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", COUNT))
        | batchers.Fixed(size=100)
        | processors.Call(gate.pass_through, batch=True)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def drain(supervisor: Supervisor) -> None:
        await standing(supervisor)
        supervisor.drain()
        gate.open()

    report = await run_beside(pipeline, drain)
    assert (report.outcome, report.exit_code) == ("interrupted", Exit.TERMINATED)
    assert report.account.unsettled == 0
    written = numbers_in(tmp_path / "out.jsonl")
    assert written == list(range(report.account.read))
    assert 0 < len(written) < COUNT

    rest = await pipeline.run()
    assert rest.account.read == COUNT - len(written)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(COUNT))


async def test_a_drain_flushes_what_a_batcher_would_have_kept_for_an_hour(tmp_path: Path) -> None:
    pipeline = (
        exactly("flushed", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", 7), follow=True)
        | batchers.Fixed(size=100, linger=3600)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def drain(supervisor: Supervisor) -> None:
        await until(supervisor, lambda status: status.account.read == 7)
        supervisor.drain()

    report = await run_beside(pipeline, drain)
    assert (report.outcome, report.exit_code) == ("drained", Exit.DONE)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(7))


async def test_a_drain_that_takes_too_long_ends_with_7_and_what_is_left_is_read_again(tmp_path: Path) -> None:
    gate = Gate()
    pipeline = (
        exactly("late", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", COUNT))
        | batchers.Fixed(size=100)
        | processors.Call(gate.pass_through, batch=True)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def drain(supervisor: Supervisor) -> None:
        await standing(supervisor)
        supervisor.drain(0.05)

    report = await run_beside(pipeline, drain)
    assert (report.outcome, report.exit_code) == ("late", Exit.DEADLINE)
    assert f"{report.account.unsettled:,} records are unsettled" in report.error
    assert numbers_in(tmp_path / "out.jsonl") == []

    gate.open()
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(COUNT))


async def test_a_drain_abandons_a_wait_for_another_attempt_and_loses_nothing(tmp_path: Path) -> None:
    down = True

    async def call(records: list[Any]) -> list[Any]:
        if down and records[0]["n"] >= 200:
            raise Unavailable("the other side is down")
        return records

    pipeline = (
        exactly("abandoned", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", 1_000))
        | batchers.Fixed(size=100)
        | processors.Call(call, batch=True, retry=Retry(attempts=1000, backoff="1h..2h"))
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def drain(supervisor: Supervisor) -> None:
        await until(supervisor, lambda status: status.account.written == 200)
        supervisor.drain()

    with anyio.fail_after(5):
        report = await run_beside(pipeline, drain)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(200))
    assert report.account.unsettled == report.account.read - 200

    down = False
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(1_000))


async def test_an_abort_touches_nothing_more_and_the_next_run_repeats_nothing(tmp_path: Path) -> None:
    pipeline = (
        exactly("aborted", tmp_path)
        | sources.Jsonl(path=numbered(tmp_path / "in.jsonl", COUNT))
        | batchers.Fixed(size=10)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    async def abort(supervisor: Supervisor) -> None:
        await until(supervisor, lambda status: status.account.written >= 100)
        supervisor.abort()

    report = await run_beside(pipeline, abort)
    assert report.exit_code == Exit.TERMINATED
    await pipeline.run()
    assert numbers_in(tmp_path / "out.jsonl") == list(range(COUNT))
