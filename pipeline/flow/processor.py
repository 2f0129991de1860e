"""The actor of a processor, or of neighbours that were fused: takes batches, works on them, hands them on."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext

from pipeline.batch import Batch
from pipeline.flow.attempts import Abandoned
from pipeline.flow.channel import Channel
from pipeline.flow.outlet import Outlet
from pipeline.flow.run import Halt, Run
from pipeline.flow.step import Rest, Step
from pipeline.flow.window import Window
from pipeline.flow.work import EachStep

__all__ = ("ProcessorActor",)


class ProcessorActor:
    """Runs one step, or several fused ones, over each batch of its inbox."""

    def __init__(
        self,
        run: Run,
        steps: Sequence[Step],
        inbox: Channel,
        outlet: Outlet,
        *,
        concurrency: int = 1,
        ordered: bool = True,
    ) -> None:
        self.name = steps[0].name
        self._run = run
        self.steps = steps
        self._inbox = inbox
        self._outlet = outlet
        self._concurrency = concurrency
        self._ordered = ordered
        self._window: Window | None = None
        self._metrics = [step.metrics for step in steps]

    async def run(self) -> None:
        """Work until the inbox ends; then close the outlet. A record that stops the run ends it early."""
        self._set_state("running")
        try:
            if not await self._one_by_one():
                window = self._window = Window(self._concurrency, self._ordered)
                await window.run(self._receive, lambda batch: self._work(batch, window.workers.rest))
            await self._finish()
        finally:
            self._set_state("stopped")
            self._outlet.close()

    def resize(self, concurrency: int) -> None:
        """Work on so many batches at a time from the next one on; records, where its function takes them singly."""
        self._concurrency = concurrency
        if self._window is not None:
            self._window.resize(concurrency)
        for step in self.steps:
            step.resize(concurrency)

    async def _one_by_one(self) -> bool:
        """Work without the cost of a window as long as that will do; tell whether the inbox has ended."""
        while self._concurrency == 1:
            batch = await self._receive()
            if batch is None or not await (await self._work(batch, nullcontext))():
                return True
        return False

    async def _receive(self) -> Batch | None:
        started = self._run.clock.now()
        batch = await self._inbox.receive()
        self._metrics[0].waiting_in_seconds += self._run.clock.now() - started
        return batch

    async def _work(self, batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        """Work on a batch and return what hands the result on."""
        halt: Halt | None = None
        abandoned = False
        ticket = batch.ticket
        place = self._run.takes(self.name, batch, self._run.clock.now())
        try:
            self._run.drop_late(batch)
            for step in self.steps if batch.records else ():
                started = self._run.clock.now()
                place.stage, place.since = step.name, started
                step.metrics.in_flight += 1
                try:
                    batch, halt_here = await self._step(step, batch, rest)
                finally:
                    step.metrics.in_flight -= 1
                seconds = self._run.clock.now() - started
                step.metrics.busy_seconds += seconds
                step.metrics.took(seconds, ticket is None or ticket.smooth)
                halt = halt_here or halt
                if not batch.records:
                    break
        except Abandoned as left:
            abandoned = True
            batch = left.done or Batch([])
        except Halt as raised:
            # Nobody can say how far it got: all of the batch stays unsettled.
            batch, halt = Batch([]), halt or raised
        # Whatever goes on, be it nothing: it ends what came, or the batcher would wait for its permit for ever.
        batch.ticket = ticket
        if ticket is not None and (abandoned or halt is not None):
            ticket.smooth = False

        async def hand_on() -> bool:
            going_on = await self._hand_on(batch, halt)
            self._run.lets_go(place)
            if abandoned:
                self._inbox.abandon()
            return going_on and not abandoned

        return hand_on

    async def _step(self, step: Step, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        while True:
            try:
                return await step.run(batch, rest)
            except (Abandoned, Halt):
                raise
            except Exception as error:
                # Whatever goes wrong with a record was dealt with; this is the stage itself.
                await step.restart(error)

    async def _hand_on(self, batch: Batch, halt: Halt | None) -> bool:
        started = self._run.clock.now()
        try:
            await self._outlet.send(batch)
        except Halt as from_outlet:
            halt = halt or from_outlet
        self._metrics[-1].waiting_out_seconds += self._run.clock.now() - started
        if halt is not None:
            self._run.stop(halt)
            self._inbox.abandon()
        return halt is None

    async def _finish(self) -> None:
        for index, step in enumerate(self.steps):
            batch = await step.finish()
            if batch is not None:
                for later in self.steps[index + 1 :]:
                    batch, _ = await later.run(batch)
                await self._hand_on(batch, None)

    def _set_state(self, state: str) -> None:
        for metrics in self._metrics:
            metrics.state = state


def may_fuse(step: Step, concurrency: int) -> bool:
    """Tell whether a step may share an actor: synchronous, one at a time, and without waits of its own."""
    attempts = step.attempts
    return isinstance(step, EachStep) and concurrency == 1 and attempts.retries.attempts == 1 and not attempts.gate
