"""The actor of a processor, or of neighbours that were fused: takes batches, works on them, hands them on."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial

import anyio

from pipeline.batch import Batch
from pipeline.flow.attempts import Abandoned
from pipeline.flow.channel import Channel
from pipeline.flow.outlet import Outlet
from pipeline.flow.run import Halt, Place, Run
from pipeline.flow.step import Rest, Step
from pipeline.flow.window import Window
from pipeline.flow.work import EachStep
from pipeline.projection import Seal
from pipeline.sizes import Gauge

__all__ = ("ProcessorActor",)

_Worked = tuple[Batch, Halt | None, bool]
"""What goes on of a batch, what ends the run with it, and whether the rest of it was abandoned to a drain."""


class ProcessorActor:
    """Runs one step, or several fused ones, over each batch of its inbox.

    Without an inbox it is the door of the source or batcher before it, and works in that one's task: see `send`.
    """

    def __init__(
        self,
        run: Run,
        steps: Sequence[Step],
        inbox: Channel | None,
        outlet: Outlet,
        *,
        concurrency: int = 1,
        ordered: bool = True,
        seal: Seal | None = None,
    ) -> None:
        self.name = steps[0].name
        self._run = run
        self.steps = steps
        self._inbox = inbox
        self._outlet = outlet
        self._concurrency = concurrency
        self._ordered = ordered
        self._seal = seal
        self._gauge = Gauge()
        self._window: Window | None = None
        self._metrics = [step.metrics for step in steps]
        # For one without an inbox:
        self.worked = 0.0
        """Seconds of work, all in the task of whoever is before it."""
        self._place = run.place(self.name)
        self._left = 0.0
        self._over = anyio.Event()
        self._error: Exception | None = None

    async def run(self) -> None:
        """Work until the inbox ends; then close the outlet. A record that stops the run ends it early."""
        self._set_state("running")
        try:
            if self._inbox is None:
                await self._be_a_door()
            else:
                await self._take_from(self._inbox)
        finally:
            self._set_state("stopped")
            self._outlet.close()

    # --- a door ---

    async def _be_a_door(self) -> None:
        self._left = self._run.clock.now()
        with self._place:
            await self._over.wait()
        if self._error is not None:
            raise self._error

    async def send(self, batch: Batch) -> None:
        """Work on a batch and hand it on.

        What the stage itself fails of is raised by `run`, so that it is this stage that it is told of.
        """
        if self._over.is_set():
            batch.forget()
            return
        clock = self._run.clock
        started = clock.now()
        self._metrics[0].waiting_in_seconds += started - self._left
        try:
            worked = await self._work(batch, nullcontext, self._place)
        except Exception as error:
            self._error = error
            self._over.set()
            batch.forget()
            return
        self.worked += clock.now() - started
        if not await self._hand_on(worked):
            self._over.set()
        self._place.batch = None
        self._left = clock.now()

    async def emptied(self) -> None:
        """Return at once: nothing stays inside."""

    def close(self) -> None:
        """Take note that nothing more comes."""
        self._over.set()

    # --- an inbox ---

    async def _take_from(self, inbox: Channel) -> None:
        if not await self._one_by_one(inbox):
            self._window = Window(self._concurrency, self._ordered, self._work_beside)
            await self._window.run(lambda: self._receive(inbox))
        await self._finish()

    def resize(self, concurrency: int) -> None:
        """Work on so many batches at a time from the next one on; records, where its function takes them singly."""
        self._concurrency = concurrency
        if self._window is not None:
            self._window.resize(concurrency)
        for step in self.steps:
            step.resize(concurrency)

    async def _one_by_one(self, inbox: Channel) -> bool:
        """Work without the cost of a window as long as that will do; tell whether the inbox has ended."""
        with self._run.place(self.name) as place:
            while self._concurrency == 1:
                batch = inbox.take()
                if batch is None:
                    batch = await self._receive(inbox)
                if batch is None or not await self._hand_on(await self._work(batch, nullcontext, place)):
                    return True
                place.batch = batch = None
        return False

    async def _receive(self, inbox: Channel) -> Batch | None:
        started = self._run.clock.now()
        batch = await inbox.receive()
        self._metrics[0].waiting_in_seconds += self._run.clock.now() - started
        return batch

    async def _work_beside(self, batch: Batch, rest: Rest) -> Callable[[], Awaitable[bool]]:
        """Work on a batch, beside others, and return what hands the result on."""
        with self._run.place(self.name) as place:
            worked = await self._work(batch, rest, place)
        return partial(self._hand_on, worked)

    async def _work(self, batch: Batch, rest: Rest, place: Place) -> _Worked:
        """Work on a batch and return what is to be handed on."""
        halt: Halt | None = None
        abandoned = False
        ticket = batch.ticket
        clock = self._run.clock
        place.batch = batch
        try:
            if self._run.witness is not None:
                self._run.drop_late(batch)
            for step in self.steps if batch.records else ():
                metrics = step.metrics
                place.stage = step.name
                started = clock.now()
                metrics.in_flight += 1
                try:
                    batch, halt_here = await step.run(batch, rest)
                except (Abandoned, Halt):
                    raise
                except Exception as error:
                    batch, halt_here = await self._after(step, error, batch, rest)
                finally:
                    metrics.in_flight -= 1
                seconds = clock.now() - started
                metrics.busy_seconds += seconds
                metrics.took(seconds, ticket is None or ticket.smooth)
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
        if self._seal is not None and batch.records:
            batch.records = self._seal(batch.records)
            batch.size = self._gauge.size(batch.records)
        if ticket is not None and (abandoned or halt is not None):
            ticket.smooth = False
        return batch, halt, abandoned

    async def _after(self, step: Step, error: Exception, batch: Batch, rest: Rest) -> tuple[Batch, Halt | None]:
        """Go on after an error of the stage itself: whatever goes wrong with a record was dealt with."""
        while True:
            await step.restart(error)
            try:
                return await step.run(batch, rest)
            except (Abandoned, Halt):
                raise
            except Exception as again:
                error = again

    async def _hand_on(self, worked: _Worked) -> bool:
        """Send on what was worked on; tell whether to go on."""
        batch, halt, abandoned = worked
        started = self._run.clock.now()
        try:
            await self._outlet.send(batch)
        except Halt as from_outlet:
            halt = halt or from_outlet
        self._metrics[-1].waiting_out_seconds += self._run.clock.now() - started
        if halt is not None:
            self._run.stop(halt)
        if halt is not None or abandoned:
            if self._inbox is not None:
                self._inbox.abandon()
            return False
        return True

    async def _finish(self) -> None:
        for index, step in enumerate(self.steps):
            batch = await step.finish()
            if batch is not None:
                for later in self.steps[index + 1 :]:
                    batch, _ = await later.run(batch)
                await self._hand_on((batch, None, False))

    def _set_state(self, state: str) -> None:
        for metrics in self._metrics:
            metrics.state = state


def may_fuse(step: Step, concurrency: int) -> bool:
    """Tell whether a step may share an actor: synchronous, one at a time, and without waits of its own."""
    return isinstance(step, EachStep) and concurrency == 1 and step.only_computes
