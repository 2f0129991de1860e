"""A processor that is a stream operator: fed one record at a time, in lock-step with what it gives back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pipeline.batch import Batch, Many
from pipeline.flow.outlet import join
from pipeline.flow.results import absorb, group
from pipeline.flow.run import Failure, Halt, Run
from pipeline.flow.step import Rest, Step
from pipeline.stage import Processor, Streamed

__all__ = ("StreamedStep",)


class StreamedStep(Step):
    """Feeds an operator and sorts what it gives back to the records it is for.

    The operator runs as a task of its own, from its first record to the end of the input. It has given all that it
    will give for a record when it asks for the next one; that is when the record's results are known.
    """

    opened: Streamed

    def __init__(self, run: Run, name: str, spec: Processor, work: Streamed) -> None:
        super().__init__(run, name, spec, work)
        self._feed: _Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        # Records that went in and that no group stands for yet.
        self._held: list[Batch] = []

    async def work(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Feed each record of a batch."""
        if self.opened.groups:
            return await self._work_in_groups(batch)
        results: list[Any] = []
        for record in batch.records:
            outputs, error = await self._put(record)
            results.append(Failure(record, error) if error is not None else _one(outputs))
        return absorb(self.run_of, self.name, batch, results)

    async def finish(self) -> Batch | None:
        """End the operator's input and return what it still had."""
        if self._feed is None:
            return None
        outputs, error = await self._feed.end()
        if error is not None:
            raise error
        if not self._held:
            return None
        held = self._held
        self._hold([])
        return self._group(join(self.run_of, held), outputs)

    async def close(self) -> None:
        """End the operator where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().close()

    async def _work_in_groups(self, batch: Batch) -> tuple[Batch, Halt | None]:
        done: list[Batch] = []
        rest = batch
        index = 0
        while index < len(rest.records):
            outputs, error = await self._put(rest.records[index])
            if error is not None:
                results: list[Any] = list(rest.records)
                results[index] = Failure(rest.records[index], error)
                rest, halt = absorb(self.run_of, self.name, rest, results)
                if halt is not None:
                    return (join(self.run_of, done) if done else Batch([])), halt
                continue
            index += 1
            if outputs:
                part, rest = self._split(rest, index)
                index = 0
                done.append(self._group(join(self.run_of, [*self._held, part]), outputs))
                self._hold([])
        if rest.records:
            self._hold([*self._held, rest])
        elif rest.spans:
            self.run_of.ledger.settle_spans(rest.spans)
        return (join(self.run_of, done) if done else Batch([])), None

    def _hold(self, batches: list[Batch]) -> None:
        """Keep batches for a group to come; what is held is not what reading has to wait for."""
        self.run_of.held_in_groups -= sum(len(batch.records) for batch in self._held)
        self._held = batches
        self.run_of.held_in_groups += sum(len(batch.records) for batch in batches)

    def _split(self, batch: Batch, at: int) -> tuple[Batch, Batch]:
        head, tail, shared = batch.split(at)
        self.run_of.ledger.share(shared)
        return head, tail

    def _group(self, batch: Batch, outputs: list[Any]) -> Batch:
        return group(self.run_of, batch, outputs)

    async def _put(self, record: Any) -> tuple[list[Any], Exception | None]:
        """Feed a record; return what came out for it, or the error that it made."""
        if self._ended:
            return [], None
        if self._feed is None:
            self._feed = _Feed()
            # The operator's task is ours alone and ends with `close`: no task group can outlive a single call here.
            self._task = asyncio.ensure_future(self._operate(self._feed))
        outputs, error = await self._feed.put(record)
        if error is not None:
            # A stream that failed is over; the next record begins a new one.
            self._feed = self._task = None
        elif self._feed.over:
            self._ended = True
        return outputs, error

    async def _operate(self, feed: "_Feed") -> None:
        try:
            async with aclosing(_closable(self.opened.function(feed))) as outputs:
                async for output in outputs:
                    feed.outputs.append(output)
        except Exception as error:
            feed.error = error
        finally:
            feed.over = True
            feed.asked.set()


class _Feed:
    """The input of an operator: hands over one record each time it asks, and knows when it asks for the next."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []
        self.error: Exception | None = None
        self.over = False
        self.asked = asyncio.Event()
        self._given: list[Any] = []
        self._closing = False
        self._filled = asyncio.Event()

    async def put(self, record: Any) -> tuple[list[Any], Exception | None]:
        """Hand over a record, and wait until the operator asks for another or is over."""
        await self.asked.wait()
        if not self.over:
            self._given.append(record)
            await self._until_asked()
        return self._take()

    async def end(self) -> tuple[list[Any], Exception | None]:
        """Say that no more comes, and wait until the operator is over."""
        while not self.over:
            await self.asked.wait()
            if not self.over:
                self._closing = True
                await self._until_asked()
        return self._take()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self.asked.set()
        await self._filled.wait()
        self._filled.clear()
        if not self._given:
            raise StopAsyncIteration
        return self._given.pop()

    async def _until_asked(self) -> None:
        self.asked.clear()
        self._filled.set()
        await self.asked.wait()

    def _take(self) -> tuple[list[Any], Exception | None]:
        outputs, self.outputs = self.outputs, []
        error, self.error = self.error, None
        return outputs, error


def _one(outputs: list[Any]) -> Any:
    if not outputs:
        return None
    return outputs[0] if len(outputs) == 1 else Many(outputs)


def _closable(outputs: AsyncIterator[Any]) -> Any:
    return outputs if hasattr(outputs, "aclose") else _generate(outputs)


async def _generate(outputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for output in outputs:
        yield output
