"""Processors that work in the task of the source or batcher before them: as if they had one of their own."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio.lowlevel
import pytest

from pipeline import Pipeline
from pipeline.errors import PipelineError, StageError
from pipeline.stage import ChannelBounds, Chunk, Processor, Reader, Restart, Retry, Source, SourceContext
from pipeline.testing import PlainListSink, Stored
from stages import batchers, processors, sources

pytestmark = pytest.mark.anyio


class Prompt(Reader):
    """Gives chunks of two."""

    prompt = True

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    async def read(self) -> AsyncGenerator[Chunk]:
        for at in range(0, len(self._records), 2):
            yield Chunk(self._records[at : at + 2], at)


class Patient(Prompt):
    """The same from somebody who may be waited for."""

    prompt = False


class Reads(Source):
    """A source with the reader of the test."""

    reader: Any

    async def open(self, context: SourceContext) -> Reader:
        reader: Reader = self.reader
        return reader


def doubled(n: int) -> int | None:
    return n * 2 if n != 3 else None


def picky(n: int) -> int:
    if n == 4:
        raise ValueError("four")
    return n


def pipeline_of(reader: Reader, *stages: Processor, on_failure: Any = "stop") -> tuple[Pipeline, Stored]:
    into = Stored()
    pipeline = Pipeline("inline", checkpoint="none", on_failure=on_failure) | Reads(reader, name="numbers")
    for stage in stages:
        pipeline = pipeline | stage
    return pipeline | batchers.Fixed(size=3) | PlainListSink(into), into


@pytest.mark.parametrize("reader", [Prompt, Patient])
async def test_what_it_gives_and_what_is_told_of_it_is_the_same(reader: type[Prompt]) -> None:
    pipeline, into = pipeline_of(reader(list(range(6))), processors.Call(doubled), processors.Call(picky, name="picky"))
    with pytest.raises(PipelineError, match=r"stage 'picky'.*numbers record 2: ValueError: four") as stopped:
        await pipeline.run()
    report = stopped.value.report

    assert report is not None and into.records == [0, 2]
    stages = {stage.name: stage for stage in report.stages}
    assert stages["picky"].failed == {"stop": 1}
    assert {stage.state for stage in report.stages} == {"stopped"}
    assert report.account.written == 2


@pytest.mark.parametrize("reader", [Prompt, Patient])
@pytest.mark.parametrize("policy", ["collect", "skip"])
async def test_a_record_that_fails_is_dealt_with_by_its_own_stage(reader: type[Prompt], policy: str) -> None:
    pipeline, into = pipeline_of(
        reader(list(range(6))), processors.Call(doubled), processors.Call(picky), on_failure=policy
    )
    report = await pipeline.run()

    assert into.records == [0, 2, 8, 10]
    assert (report.account.written, report.account.filtered, report.account.read) == (4, 1, 6)


def channels_of(report: Any) -> list[str]:
    return [channel.stage for channel in report.channels]


async def test_only_behind_a_source_that_never_waits_there_is_no_channel() -> None:
    async def inboxes(reader: Reader, **keys: Any) -> list[str]:
        pipeline, _ = pipeline_of(reader, processors.Call(doubled, name="double", **keys))
        report = await pipeline.run()
        return channels_of(report)

    assert "double" not in await inboxes(Prompt([1, 2, 3]))
    assert "double" in await inboxes(Patient([1, 2, 3]))
    assert "double" in await inboxes(Prompt([1, 2, 3]), restart=Restart(attempts=1))
    assert "double" in await inboxes(Prompt([1, 2, 3]), channel=ChannelBounds(records=10))


async def halved(records: list[int]) -> list[int]:
    return [n // 2 for n in records]


def batched(*stages: Processor, on_failure: Any = "stop") -> tuple[Pipeline, Stored]:
    into = Stored()
    pipeline = Pipeline("inline", checkpoint="none", on_failure=on_failure) | sources.Iterable(
        range(3000), name="numbers"
    )
    pipeline = pipeline | batchers.Fixed(size=100, name="batch")
    for stage in stages:
        pipeline = pipeline | stage
    return pipeline | PlainListSink(into), into


async def test_behind_a_batcher_only_what_waits_has_a_channel() -> None:
    async def inboxes(function: Any, **keys: Any) -> list[str]:
        pipeline, into = batched(processors.Call(function, batch=True, name="work", **keys))
        report = await pipeline.run()
        assert len(into.records) == 3000
        return channels_of(report)

    def whole(records: list[int]) -> list[int]:
        return records

    assert "work" not in await inboxes(whole)
    assert "work" in await inboxes(halved)
    assert "work" in await inboxes(whole, executor="thread")
    assert "work" in await inboxes(whole, concurrency=2)
    assert "work" in await inboxes(whole, retry=Retry(attempts=2))
    assert "work" in await inboxes(whole, restart=Restart(attempts=1))
    assert "work" in await inboxes(whole, channel=ChannelBounds(records=10))


async def test_a_fault_behind_a_batcher_ends_the_run_by_the_name_of_its_stage() -> None:
    def broken(records: list[int]) -> list[int]:
        raise StageError("no such table")

    pipeline, into = batched(processors.Call(broken, batch=True, name="broken"))
    with pytest.raises(PipelineError, match=r"^stage 'broken' \(processor call\): no such table$"):
        await pipeline.run()

    assert into.records == []


async def test_a_record_that_fails_behind_a_batcher_ends_the_run_with_what_came_before_it() -> None:
    def seventh(records: list[int]) -> list[int]:
        if 707 in records:
            raise ValueError("seven")
        return records

    pipeline, into = batched(processors.Call(seventh, batch=True, name="seventh"))
    with pytest.raises(PipelineError, match=r"stage 'seventh'.*numbers record 707: ValueError: seven"):
        await pipeline.run()

    assert into.records == list(range(707))


async def test_the_work_of_the_stage_is_not_taken_for_waiting_of_the_batcher_and_the_loop_gets_its_turns() -> None:
    turns = 0

    def slow(records: list[int]) -> list[int]:
        time.sleep(0.006)
        # Nothing goes on: nobody behind makes this task wait.
        return [None for _ in records]  # type: ignore[misc]

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    pipeline, into = batched(processors.Call(slow, batch=True, name="slow"))
    counting = asyncio.create_task(count())
    report = await pipeline.run()
    counting.cancel()
    stages = {stage.name: stage for stage in report.stages}

    assert into.records == []
    assert stages["slow"].busy > 0.5
    assert stages["batch"].waiting_out < 0.3
    assert turns >= 30


async def test_a_fault_of_the_stage_itself_ends_the_run_by_its_name() -> None:
    def broken(n: int) -> int:
        raise StageError("no such table")

    pipeline, into = pipeline_of(Prompt([1, 2, 3]), processors.Call(broken, name="broken"))
    with pytest.raises(PipelineError, match=r"^stage 'broken' \(processor call\): no such table$"):
        await pipeline.run()

    assert into.records == []


async def test_the_work_of_the_stage_is_not_taken_for_waiting_of_the_source() -> None:
    def slow(n: int) -> int:
        time.sleep(0.002)
        return n

    pipeline, _ = pipeline_of(Prompt(list(range(60))), processors.Call(slow, name="slow"))
    report = await pipeline.run()
    stages = {stage.name: stage for stage in report.stages}

    assert stages["slow"].busy > 0.5
    assert stages["numbers"].waiting_out < 0.3
    assert "'slow' worked" in report.bottleneck


async def test_a_generator_feeds_it_without_a_channel_too() -> None:
    into = Stored()
    pipeline = (
        Pipeline("inline", checkpoint="none")
        | sources.Iterable(range(2000))
        | processors.Call(doubled, name="double")
        | PlainListSink(into)
    )
    report = await pipeline.run()

    assert into.records == [n * 2 for n in range(2000) if n != 3]
    assert "double" not in channels_of(report)
