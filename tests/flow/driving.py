"""Parts of a run, put together by hand: a plan of small stages, batches that the books know, actors under a clock."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, cast

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.chain import Chain
from pipeline.control.law import Law
from pipeline.flow.channel import Channel
from pipeline.flow.outlet import Branch, Outlet
from pipeline.flow.run import Run
from pipeline.stage import Batcher, Processor, Sink, SinkContext, Stage, StageContext, Work, Writer, key
from pipeline.testing import ListSource, ManualClock, PlainListSink, batch_of
from pipeline.watch.events import Events


class Works(Processor):
    """A processor of whatever work it is given."""

    work: Annotated[Any, key("The work, or what makes it.")]

    async def open(self, context: StageContext) -> Work:
        work: Work = self.work(context) if isinstance(self.work, type) else self.work
        return work


class Cuts(Batcher, kw_only=True):
    """A batcher with a law of the test."""

    make: Annotated[Callable[[], Any], key("Makes the law.")]

    def law(self) -> Law:
        law: Law = self.make()
        return law


class Writes(Sink):
    """A sink whose writer is the test's."""

    writer: Annotated[Any, key("The writer, or what makes it.")]

    def durable(self) -> bool:
        return False

    async def open(self, context: SinkContext) -> Writer:
        made: Any = self.writer if isinstance(self.writer, Writer) else self.writer(context)
        return cast(Writer, made)


def run_of(*stages: Stage, clock: ManualClock | None = None, read: int = 0, **keys: Any) -> Run:
    """Return a run of stages between a source and a sink, of whose source so many records were read."""
    links = list(stages)
    if not links or links[0].role != "source":
        links.insert(0, ListSource([], name="source"))
    if links[-1].role != "sink":
        links.append(PlainListSink(name="sink"))
    pipeline = Pipeline("test", checkpoint="none", **keys) | Chain(tuple(links))
    run = Run(pipeline.topology(), clock or ManualClock(), Events(), lineage="lineage")
    for source in run.topology.sources:
        run.ledger.start(source.name, 0)
        run.ledger.read(source.name, read)
    return run


def read(run: Run, *records: Any, source: str = "source") -> Batch:
    """Return a batch of records that were just read."""
    return batch_of(*records, source=source, start=run.ledger.read(source, len(records)))


def outlet_to(run: Run, channel: Channel, stage: str = "sink") -> Outlet:
    return Outlet(run, [Branch(stage, channel)])


def channel_of(run: Run, **bounds: Any) -> Channel:
    return Channel(run.clock, **({"batches": 1000} | bounds))


async def drained(channel: Channel) -> list[Batch]:
    """Return what is in a channel."""
    found: list[Batch] = []
    while (batch := channel.take()) is not None:
        found.append(batch)
    return found


def within(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run asynchronous work to its end on a loop of its own; work that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work()

    asyncio.run(bounded())


async def nothing(*_: Any) -> None:
    """Do nothing."""


Work_ = Callable[..., Awaitable[Any]]
