"""What is promised of every run, where it is hardest to keep: each record once, a true account, the right end."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import anyio
import pytest

from pipeline import Pipeline
from pipeline.batch import Batch, Failed
from pipeline.control.fixed import FixedLaw
from pipeline.errors import ConfigError, Exit, StateError
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import Chunk, OnFailure, Reader, Restart, Retry, Sink, SinkContext, Source, SourceContext, Writer
from pipeline.watch.report import Report
from stages import batchers, processors, sinks, sources
from stages.sinks.sqlite import SqliteWriter
from tests.end_to_end.running import numbered, numbers_in, records_in, run_beside, standing, until
from tests.flow.driving import Cuts

pytestmark = pytest.mark.anyio


class Turns(Sink):
    """A sink whose every write is a call of a function."""

    turn: Any

    async def open(self, context: SinkContext) -> Writer:
        return _TurnsWriter(self.turn)


class _TurnsWriter(Writer):
    def __init__(self, turn: Any) -> None:
        self._turn = turn

    async def write(self, batch: Batch) -> None:
        await self._turn()


class Cursor:
    """Where a source is, of a class whose living ones can be counted."""


class Counted(Source):
    """A source that counts how many of its cursors somebody still holds."""

    chunks: int
    most: list[int]

    def replayable(self) -> bool:
        return False

    async def open(self, context: SourceContext) -> Reader:
        return _CountedReader(self.chunks, self.most)


class _CountedReader(Reader):
    def __init__(self, chunks: int, most: list[int]) -> None:
        self._chunks, self._most = chunks, most

    async def read(self) -> AsyncIterator[Chunk]:
        alive: WeakSet[Cursor] = WeakSet()
        for n in range(self._chunks):
            cursor = Cursor()
            alive.add(cursor)
            yield Chunk([{"n": n}, {"n": n + 1}], cursor)
            self._most[0] = max(self._most[0], len(alive))


def reading(folder: Path, name: str = "in.jsonl", **keys: Any) -> Pipeline:
    """Return a pipeline that reads a file and saves its state beside it."""
    checkpoint = {"path": str(folder / "state.db"), "interval": 0.05, **keys.pop("checkpoint", {})}
    return Pipeline("p", checkpoint=checkpoint, **keys) | sources.Jsonl(path=str(folder / name))


def to(folder: Path, name: str = "out", **keys: Any) -> sinks.Jsonl:
    """Return a sink to a file of that name."""
    return sinks.Jsonl(path=str(folder / f"{name}.jsonl"), name=name, **keys)


def letters(folder: Path) -> list[int]:
    """Return the numbers of the records whose letters were saved."""
    return numbers_of(folder / "state.db", "SELECT number FROM letters ORDER BY number")


def numbers_of(path: Path, query: str) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute(query)]
    finally:
        connection.close()


def groups_in(path: Path) -> list[list[int]]:
    return [record["n"] for record in records_in(path)]


_HANGS = 50.0
"""Seconds after which a run hangs: a busy machine was seen to take more than ten."""


async def ended(pipeline: Pipeline, **options: Any) -> Report:
    """Run to whatever end and return the report; a run that hangs fails."""
    with anyio.fail_after(_HANGS):
        return await pipeline.supervisor(**options).run()


async def drained_when(pipeline: Pipeline, ready: Callable[[Supervisor], bool]) -> Report:
    """Run, and drain with hardly any time once something is so."""

    async def drain(supervisor: Supervisor) -> None:
        await until(supervisor, lambda status: ready(supervisor))
        supervisor.drain(0.05)

    with anyio.fail_after(_HANGS):
        return await run_beside(pipeline, drain)


def counts(report: Report) -> dict[str, int]:
    """Return what of the account is not zero, having seen that it adds up."""
    found = report.account.as_dict()
    assert found["read"] == sum(number for name, number in found.items() if name != "read")
    return {name: number for name, number in found.items() if number}


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "table"])
async def test_a_run_drained_before_its_first_read_keeps_the_place_inside_a_chunk(kind: str, tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 400)
    bad = {100}

    def step(record: Any) -> Any:
        if record["n"] in bad:
            raise ValueError("bad")
        return record

    table = sinks.Sqlite(path=str(tmp_path / "out.db"), table="t")
    sink = to(tmp_path) if kind == "file" else table
    pipeline = reading(tmp_path, delivery="exactly_once") | processors.Call(step) | sink
    stopped = await ended(pipeline)
    assert (stopped.exit_code, counts(stopped)) == (Exit.FAILED, {"read": 400, "written": 100, "unsettled": 300})
    bad.clear()
    supervisor = pipeline.supervisor()
    supervisor.drain()
    assert (await supervisor.run()).account.read == 0
    assert counts(await ended(pipeline)) == {"read": 300, "written": 300}
    found = numbers_in(tmp_path / "out.jsonl") if kind == "file" else numbers_of(tmp_path / "out.db", "SELECT n FROM t")
    assert found == list(range(400))


async def test_a_letter_far_beyond_what_was_read_again_is_not_written_twice(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 600)
    held = True

    async def step(record: Any) -> Any:
        if record["n"] == 0 and held:
            await anyio.sleep_forever()
        if record["n"] == 500:
            raise ValueError("bad")
        return record

    def pipeline(most: int) -> Pipeline:
        call = processors.Call(step, concurrency=1_000, ordered=False, on_failure="dead_letter")
        cut = batchers.Adaptive(target_latency=5, min_size=10, max_size=10, max_in_flight=100)
        return reading(tmp_path, checkpoint={"max_unsettled": most}) | cut | call | to(tmp_path)

    await drained_when(pipeline(100_000), lambda supervisor: supervisor.status().account.settled >= 590)
    assert letters(tmp_path) == [500]

    async def drain(supervisor: Supervisor) -> None:
        await standing(supervisor)
        supervisor.drain(0.05)

    again = await run_beside(pipeline(50), drain)
    assert again.account.read < 500
    held = False
    last = await ended(pipeline(100_000))
    assert (last.exit_code, last.dead_letters, letters(tmp_path)) == (Exit.DONE, 1, [500])
    assert sorted(numbers_in(tmp_path / "out.jsonl")) == [n for n in range(600) if n != 500]


async def test_branches_that_refuse_records_by_turns_still_get_each_once(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    bad = {"A": 7, "B": 2}

    def wants(name: str) -> Callable[[Any], bool]:
        def decide(record: Any) -> bool:
            if bad.get(name) == record["n"]:
                raise ValueError(name)
            return True

        return decide

    branches = [to(tmp_path, name, when=wants(name)) for name in "AB"]
    pipeline = reading(tmp_path, delivery="exactly_once") | branches
    stopped = await ended(pipeline)
    assert (stopped.exit_code, counts(stopped)) == (Exit.FAILED, {"read": 10, "written": 2, "unsettled": 8})
    bad.clear()
    assert counts(await ended(pipeline)) == {"read": 8, "written": 8}
    assert numbers_in(tmp_path / "A.jsonl") == numbers_in(tmp_path / "B.jsonl") == list(range(10))


async def test_a_record_held_by_one_sink_that_fails_above_both_is_lettered(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 4)
    first = True

    def flaky(record: Any) -> Any:
        if not first and record["n"] == 1:
            raise ValueError("flaky")
        return record

    async def slow(record: Any) -> Any:
        if first:
            await anyio.sleep_forever()
        return record

    branches = [to(tmp_path, "A"), processors.Call(slow, name="slow") | to(tmp_path, "B")]
    start = reading(tmp_path, delivery="exactly_once")
    pipeline = start | processors.Call(flaky, on_failure="dead_letter") | branches
    await drained_when(pipeline, lambda supervisor: len(numbers_in(tmp_path / "A.jsonl")) == 4)
    first = False
    assert counts(await ended(pipeline)) == {"read": 4, "written": 3, "dead_lettered": 1}
    assert numbers_in(tmp_path / "A.jsonl") == [0, 1, 2, 3]
    assert (numbers_in(tmp_path / "B.jsonl"), letters(tmp_path)) == ([0, 2, 3], [1])


async def test_a_group_of_another_size_on_resume_is_not_taken_for_the_one_held(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 4)
    first = True

    async def group(records: list[Any]) -> list[Any]:
        if first and records[0]["n"] == 0:
            await anyio.sleep_forever()
        return [{"n": [record["n"] for record in records]}]

    async def turn() -> None:
        if first:
            await anyio.sleep_forever()

    def pipeline(size: int) -> Pipeline:
        cut = batchers.Adaptive(target_latency=5, min_size=size, max_size=size, linger=0.1, max_in_flight=4)
        call = processors.Call(group, batch=True, aggregate=True, concurrency=2, ordered=False)
        return reading(tmp_path) | cut | call | [to(tmp_path, "A"), Turns(turn, name="B")]

    await drained_when(pipeline(2), lambda supervisor: bool(numbers_in(tmp_path / "A.jsonl")))
    assert groups_in(tmp_path / "A.jsonl") == [[2, 3]]
    first = False
    assert counts(await ended(pipeline(4))) == {"read": 4, "written": 4}
    assert groups_in(tmp_path / "A.jsonl") == [[2, 3], [0, 1, 2, 3]]


async def test_a_letter_of_a_cut_that_a_busy_database_refused_is_saved_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    monkeypatch.setattr("stages.sqlite_connection._BUSY_TURNS", 1)
    seal, refused = SqliteWriter.seal, asyncio.Event()

    async def busy(self: SqliteWriter) -> None:
        if refused.is_set():
            return await seal(self)
        other = sqlite3.connect(tmp_path / "out.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            await seal(self)
        finally:
            other.close()
            refused.set()

    async def step(record: Any) -> Any:
        if record["n"] == 3:
            raise ValueError("bad")
        if record["n"] == 9:
            await refused.wait()
        return record

    monkeypatch.setattr(SqliteWriter, "seal", busy)
    call = processors.Call(step, on_failure="dead_letter")
    sink = sinks.Sqlite(path=str(tmp_path / "out.db"), table="t")
    pipeline = reading(tmp_path) | batchers.Fixed(size=5, linger=0.05) | call | sink
    assert counts(await ended(pipeline)) == {"read": 10, "written": 9, "dead_lettered": 1}
    assert counts(await ended(pipeline)) == {}
    assert letters(tmp_path) == [3]
    assert numbers_of(tmp_path / "out.db", "SELECT n FROM t ORDER BY n") == [n for n in range(10) if n != 3]


async def test_each_limited_run_goes_on_behind_the_one_before(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 1_000)
    pipeline = reading(tmp_path) | to(tmp_path)
    for run in range(1, 4):
        assert counts(await ended(pipeline, limit=100)) == {"read": 100, "written": 100}
        assert numbers_in(tmp_path / "out.jsonl") == list(range(run * 100))


# --- a fresh run that is refused --------------------------------------------------------------------------------------


async def test_a_fresh_run_that_one_sink_refuses_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    table = sinks.Sqlite(name="S", path=str(tmp_path / "out.db"), table="t", mode="overwrite")
    pipeline = reading(tmp_path) | [table, to(tmp_path)]
    assert counts(await ended(pipeline)) == {"read": 10, "written": 10}
    with pytest.raises(StateError, match="earlier lineage"):
        await ended(pipeline, fresh=True)
    assert numbers_of(tmp_path / "out.db", "SELECT n FROM t") == numbers_in(tmp_path / "out.jsonl") == list(range(10))
    after = await ended(pipeline)
    assert (after.exit_code, counts(after)) == (Exit.DONE, {})


async def test_a_fresh_run_whose_source_refuses_empties_nothing_and_begins_no_lineage(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    pipeline = reading(tmp_path) | to(tmp_path, mode="overwrite")
    before = await ended(pipeline)
    (tmp_path / "in.jsonl").rename(tmp_path / "away.jsonl")
    with pytest.raises(ConfigError, match="no file matches"):
        await ended(pipeline, fresh=True)
    assert numbers_in(tmp_path / "out.jsonl") == list(range(10))
    (tmp_path / "away.jsonl").rename(tmp_path / "in.jsonl")
    after = await ended(pipeline)
    assert (after.lineage, counts(after)) == (before.lineage, {})


# --- children and groups ----------------------------------------------------------------------------------------------


def tripled(folder: Path, *more: Any) -> Pipeline:
    numbered(folder / "in.jsonl", 30)
    pipeline = reading(folder) | processors.Explode(function=lambda record: [record, record, record])
    for stage in more:
        pipeline |= stage
    return pipeline | to(folder)


async def test_children_that_share_groups_are_summed_once_and_settle(tmp_path: Path) -> None:
    def total(records: list[Any]) -> list[Any]:
        return [{"n": len(records)}]

    call = processors.Call(total, batch=True, aggregate=True)
    pipeline = tripled(tmp_path, batchers.Fixed(size=2, name="b1"), batchers.Fixed(size=4, name="b2"), call)
    assert counts(await ended(pipeline)) == {"read": 30, "written": 30}
    assert counts(await ended(pipeline)) == {}
    assert sum(numbers_in(tmp_path / "out.jsonl")) == 90


async def test_children_that_are_batched_three_times_over_all_settle(tmp_path: Path) -> None:
    sorts = batchers.Fixed(size=4, name="b2", order_by=lambda record: -record["n"])
    pipeline = tripled(tmp_path, batchers.Fixed(size=2, name="b1"), sorts, batchers.Fixed(size=3, name="b3"))
    assert counts(await ended(pipeline)) == {"read": 30, "written": 30}
    assert sorted(numbers_in(tmp_path / "out.jsonl")) == [n for n in range(30) for _ in range(3)]


async def test_a_stream_that_gathers_more_than_may_be_unsettled_does_not_hang(tmp_path: Path) -> None:
    operators = pytest.importorskip("aiostream").pipe
    numbered(tmp_path / "in.jsonl", 20_000)

    def size(records: list[Any]) -> dict[str, int]:
        return {"n": len(records)}

    pipeline = (
        reading(tmp_path, checkpoint={"max_unsettled": 1_000})
        | operators.chunks(5_000)
        | processors.Call(size)
        | to(tmp_path)
    )
    assert counts(await ended(pipeline)) == {"read": 20_000, "written": 20_000}
    assert sum(numbers_in(tmp_path / "out.jsonl")) == 20_000


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permits", [1, 3])
async def test_a_stop_ends_although_permits_fell_while_batches_were_in_flight(permits: int, tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 400)
    law, calls = FixedLaw(10), 0
    law.permits = 4

    async def step(records: list[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls < 9:
            return records
        if calls > 9:
            await anyio.sleep_forever()
        await anyio.sleep(0.02)
        law.permits = permits
        return [Failed(records[0], "bad"), *records[1:]]

    call = processors.Call(step, batch=True, concurrency=4)
    stopped = await ended(reading(tmp_path) | Cuts(make=lambda: law) | call | to(tmp_path))
    assert (stopped.exit_code, counts(stopped)) == (Exit.FAILED, {"read": 400, "written": 80, "unsettled": 320})
    assert "in.jsonl:81 " in stopped.error


async def test_a_stop_ends_although_the_sink_got_faster_just_before(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 5_000)
    seconds, calls = 0.005, 0

    async def step(records: list[Any]) -> list[Any]:
        nonlocal seconds, calls
        calls += 1
        if calls > 60:
            await anyio.sleep_forever()
        if calls == 60:
            seconds = 0.0
            await anyio.sleep(0.3)
            return [Failed(records[0], "bad"), *records[1:]]
        await anyio.sleep(0.02)
        return records

    async def turn() -> None:
        await anyio.sleep(seconds)

    call = processors.Call(step, batch=True, concurrency=4)
    stopped = await ended(reading(tmp_path) | batchers.Fixed(size=10) | call | Turns(turn))
    assert (stopped.exit_code, stopped.account.written) == (Exit.FAILED, 590)
    assert "in.jsonl:591 " in stopped.error


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_drain_abandons_retries_at_once_and_says_that_the_run_is_not_done(
    concurrency: int, tmp_path: Path
) -> None:
    numbered(tmp_path / "in.jsonl", 50)
    down = True

    async def step(record: Any) -> Any:
        if down:
            raise ConnectionError("down")
        return record

    retry = Retry(attempts=10, backoff=(3600.0, 3600.0))
    pipeline = reading(tmp_path) | processors.Call(step, concurrency=concurrency, retry=retry) | to(tmp_path)

    async def drain(supervisor: Supervisor) -> None:
        await until(supervisor, lambda status: any(stage.retries for stage in status.stages))
        await standing(supervisor, 10)
        supervisor.drain()

    with anyio.fail_after(5):
        report = await run_beside(pipeline, drain)
    assert (report.outcome, report.exit_code) == ("interrupted", Exit.TERMINATED)
    assert counts(report) == {"read": 50, "unsettled": 50}
    down = False
    assert counts(await ended(pipeline)) == {"read": 50, "written": 50}
    assert numbers_in(tmp_path / "out.jsonl") == list(range(50))


# --- storage and memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["A", "AB"])
async def test_syncs_that_fail_together_end_the_run_as_one_storage_fault(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    fsync, outputs = os.fsync, [tmp_path / f"{name}.jsonl" for name in names]

    def broken(descriptor: int) -> None:
        if any(path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()) for path in outputs):
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    report = await ended(reading(tmp_path) | [to(tmp_path, name) for name in names])
    assert (report.outcome, report.exit_code) == ("failed", Exit.STORAGE)
    assert ".jsonl durable: Input/output error" in report.error


@pytest.mark.parametrize("keys", [{}, {"concurrency": 4}, {"restart": Restart(attempts=3)}])
async def test_a_full_disk_under_a_function_is_a_storage_fault_and_no_restart(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    calls: list[int] = []

    def full(record: Any) -> Any:
        calls.append(record["n"])
        raise OSError(errno.ENOSPC, "No space left on device")

    async def waits(record: Any) -> Any:
        return full(record)

    function: Any = waits if "concurrency" in keys else full
    report = await ended(reading(tmp_path) | processors.Call(function, **keys) | to(tmp_path))
    assert (report.exit_code, counts(report)) == (Exit.STORAGE, {"read": 10, "unsettled": 10})
    assert len(calls) == len(set(calls)) <= keys.get("concurrency", 1)


async def test_without_a_checkpoint_nothing_is_kept_of_what_was_settled() -> None:
    most = [0]
    keep = processors.Filter(lambda record: record["n"] % 2 == 0)
    report = await ended(Pipeline("p", checkpoint="none") | Counted(2_000, most) | keep | sinks.Discard())
    assert counts(report) == {"read": 4_000, "written": 2_000, "filtered": 2_000}
    assert 0 < most[0] < 500


# --- functions that try to end the program ----------------------------------------------------------------------------


def ending(raised: type[BaseException], shape: str) -> processors.Call:
    """Return a stage whose function raises at record 2."""

    def inline(record: Any) -> Any:
        if record["n"] == 2:
            raise raised
        return record

    async def waits(record: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return inline(record)

    def whole(records: list[Any]) -> list[Any]:
        return [inline(record) for record in records]

    functions: dict[str, Any] = {"inline": inline, "async": waits, "batch": whole}
    return processors.Call(functions[shape], batch=shape == "batch", concurrency=1 if shape == "inline" else 2)


SHAPES = pytest.mark.parametrize("shape", ["inline", "async", "batch"])
ENDINGS = pytest.mark.parametrize("raised", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])


def around(folder: Path, raised: type[BaseException], shape: str, on_failure: OnFailure) -> Pipeline:
    numbered(folder / "in.jsonl", 6)
    return reading(folder, on_failure=on_failure) | ending(raised, shape) | to(folder)


@SHAPES
@ENDINGS
async def test_a_function_that_tries_to_end_the_program_costs_only_its_record(
    raised: type[BaseException], shape: str, tmp_path: Path
) -> None:
    report = await ended(around(tmp_path, raised, shape, "skip"))
    assert (report.exit_code, counts(report)) == (Exit.DONE, {"read": 6, "written": 5, "skipped": 1})
    assert numbers_in(tmp_path / "out.jsonl") == [0, 1, 3, 4, 5]


@SHAPES
@ENDINGS
async def test_a_function_that_tries_to_end_the_program_stops_the_run_at_its_record(
    raised: type[BaseException], shape: str, tmp_path: Path
) -> None:
    report = await ended(around(tmp_path, raised, shape, "stop"))
    assert (report.outcome, report.exit_code) == ("stopped", Exit.FAILED)
    assert counts(report) == {"read": 6, "written": 2, "unsettled": 4}
    assert "in.jsonl:3 " in report.error
    assert raised.__name__ in report.error
    assert numbers_in(tmp_path / "out.jsonl") == [0, 1]
