"""What every form of a processor's work shares: its counters, its attempts, and what a failure means."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from pipeline.batch import Batch
from pipeline.control.policy import Kind
from pipeline.flow.attempts import Attempts, Spent
from pipeline.flow.restart import Restarts
from pipeline.flow.run import Failure, Halt, Run
from pipeline.sizes import estimate
from pipeline.stage import FunctionContext, Processor, Work

__all__ = ("Rest", "Step")

Rest = Callable[[], AbstractAsyncContextManager[Any]]


class Step:
    """One processor's work on a batch. ``run`` takes the batch over and returns what goes on, and a halt if any."""

    by_record = False
    """Whether its function is called for each record: then ``concurrency`` is of records too."""

    def __init__(self, run: Run, name: str, spec: Processor, opened: Work) -> None:
        self.name = name
        self.opened = opened
        self.reopen: Callable[[], Awaitable[Work]] | None = None
        """Opens the stage again, for a restart."""
        self.run_of = run
        self.metrics = run.metrics[name]
        self.attempts = Attempts(run, name, spec, self.by_record)
        self._restarts = Restarts(run, name, spec.restart)
        self._concurrency = spec.concurrency
        # A record is kept as it came where somebody may need it again: another attempt, or its letter.
        self.keeps = self.attempts.retries.attempts > 1 or run.policies[name] == "dead_letter"

    @property
    def remakes(self) -> bool:
        """Whether the records that go on may be of other sizes than those that came."""
        return True

    async def run(self, batch: Batch, rest: Rest = nullcontext) -> tuple[Batch, Halt | None]:
        """Do the work."""
        self.metrics.records_in += len(batch.records)
        before = batch.records
        batch, halt = await self.work(batch, rest)
        if batch.records is not before and self.remakes:
            batch.size = estimate(batch.records)
        self.metrics.records_out += len(batch.records)
        return batch, halt

    async def work(self, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Do the work of this form."""
        raise NotImplementedError

    async def restart(self, error: Exception) -> None:
        """Open the stage again after an error that no record explains, if it may be.

        :raises StageError: when it may not.
        """
        self._restarts.check(error)
        await self.close()
        if self.reopen is not None:
            self.opened = await self.reopen()
            if self.opened.resize is not None:
                self.opened.resize(self._concurrency)

    def resize(self, concurrency: int) -> None:
        """Let the function be called so many times at once."""
        self.metrics.concurrency = self._concurrency = concurrency
        if self.opened.resize is not None:
            self.opened.resize(concurrency)

    async def close(self) -> None:
        """Let go of what the stage opened."""
        if self.opened.close is not None:
            await self.opened.close()

    async def finish(self) -> Batch | None:
        """Return what is left when the input has ended."""
        return None

    def context(self, batch: Batch, index: int, attempt: int) -> FunctionContext:
        """Return what a function is told about a record."""
        origin = batch.origin(index)
        run = self.run_of
        return FunctionContext(origin, run.position_of(origin), attempt, batch.metadata, run.key_of(origin))

    def spent(self, batch: Batch, index: int, record: Any, error: Spent) -> Failure:
        """Return the failure of a record whose attempts are used up.

        :raises Halt: when it is the other side that can't be reached: the record is not to blame and stays unsettled.
            Where somebody waits for an answer, that is the answer.
        """
        unavailable = error.kind is Kind.UNAVAILABLE
        if unavailable and not self.run_of.answers(batch):
            planned = self.run_of.topology.stages[self.name]
            position = self.run_of.position_of(batch.origin(index))
            raise Halt(self.name, f"{planned.role} {planned.kind}", position, error.error) from error.error
        failure = Failure(record, error.error, error.attempts, unavailable)
        if self.run_of.policies[self.name] == "stop":
            # Nothing behind it is worth a call any more.
            halt = self.run_of.fail(self.name, batch, index, failure)
            if halt is not None:
                raise halt
        return failure
