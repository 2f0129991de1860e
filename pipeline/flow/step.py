"""What every form of a processor's work shares: its counters, its attempts, and what a failure means."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from pipeline.batch import Batch
from pipeline.control.policy import Kind
from pipeline.flow.attempts import Attempts, Spent
from pipeline.flow.gate import Abandoned, Rest
from pipeline.flow.parts import Unreachable
from pipeline.flow.restart import Restarts
from pipeline.flow.results import absorb, up_to
from pipeline.flow.run import Failure, Halt, Run
from pipeline.sizes import Gauge
from pipeline.stage import FunctionContext, Processor, Work

__all__ = ("Abandoned", "Rest", "Step")


class Step:
    """One processor's work on a batch. ``run`` takes the batch over and returns what goes on, and a halt if any."""

    computes = False
    """Whether its function returns without waiting for anything."""
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
        self._gauge = Gauge()
        # A record is kept as it came where somebody may need it again: another attempt, or its letter.
        again = self.attempts.retries.attempts > 1 or self.attempts.gate.breaker is not None
        self.keeps = again or run.policies[name] == "dead_letter"

    @property
    def only_computes(self) -> bool:
        """Whether a batch passes without a wait: its function makes none, and nothing stands around a call."""
        return self.computes and self.attempts.retries.attempts == 1 and not self.attempts.gate

    @property
    def remakes(self) -> bool:
        """Whether the records that go on may be of other sizes than those that came."""
        return True

    async def run(self, batch: Batch, rest: Rest = nullcontext) -> tuple[Batch, Halt | None]:
        """Do the work."""
        before = batch.records
        self.metrics.records_in += len(before)
        batch, halt = await self.work(batch, rest)
        after = batch.records
        if after is not before and self.remakes:
            batch.size = self._gauge.size(after)
        self.metrics.records_out += len(after)
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

    def failure(self, batch: Batch, index: int, error: Exception, attempts: int, unavailable: bool = False) -> Failure:
        """Return the failure of a record whose attempts are used up.

        ``unavailable`` says that no record is to blame, and that somebody waits to be told.

        :raises Halt: when it stops the run: nothing behind it is worth a call any more.
        """
        failure = Failure(batch.records[index], error, attempts, unavailable)
        if self.run_of.policies[self.name] == "stop":
            halt = self.run_of.fail(self.name, batch, index, failure)
            if halt is not None:
                raise halt
        return failure

    def is_missed(self, spent: Spent) -> bool:
        """Tell whether a record failed of what may be the other side's fault: nothing else got through since.

        Or it has attempts left, which ended only so that the breaker would not open.
        """
        attempts = self.attempts
        return spent.kind is Kind.UNAVAILABLE and (
            attempts.was_down(spent)
            or not attempts.got_through(spent.since)
            or attempts.has_more(spent.attempts, spent.started)
        )

    def ended(
        self, batch: Batch, results: list[Any], index: int, end: Halt | Unreachable | Abandoned
    ) -> tuple[Batch, Halt | None]:
        """Return what goes on of a batch whose record at an index is not done, and what ends the run there.

        :raises Abandoned: with what goes on, when it is a drain.
        """
        if isinstance(end, Unreachable):
            # No record is to blame.
            end = self.run_of.unreachable(self.name, batch.origin(end.index), end.error)
        head, results = up_to(self.run_of, batch, results, index)
        done, earlier = self.finished(head, results)
        if earlier is None and isinstance(end, Abandoned):
            raise Abandoned(done) from end
        return done, earlier or (end if isinstance(end, Halt) else None)

    def finished(self, batch: Batch, results: list[Any]) -> tuple[Batch, Halt | None]:
        """Put the results in the place of a batch's records."""
        return absorb(self.run_of, self.name, batch, results)
