"""What is kept of a run for those who watch it: the last hour, breakers, alerts and metrics."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.clock import Clock
from pipeline.flow.assembly import Assembly
from pipeline.flow.whereabouts import whereabouts
from pipeline.plan.topology import Topology
from pipeline.settle.checkpointer import Checkpointer
from pipeline.watch.alerts import Seen
from pipeline.watch.events import Events, hidden
from pipeline.watch.exposition import Metric
from pipeline.watch.measures import measures
from pipeline.watch.report import Status
from pipeline.watch.window import Counted, Lately, Window

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pipeline.flow.telling import AlertTeller, MetricsPusher

__all__ = ("Watch",)


class Watch:
    """Watches one run. ``seconds`` are those since its beginning, ``status`` is the run at this moment."""

    def __init__(
        self,
        topology: Topology,
        clock: Clock,
        events: Events,
        seconds: Callable[[], float],
        status: Callable[[], Status],
    ) -> None:
        self._topology = topology
        self._events = events
        self._seconds = seconds
        self._status = status
        self._assembly: Assembly | None = None
        self._checkpointer: Checkpointer | None = None
        self._window = Window()
        self._open_since: dict[str, float] = {}
        self._was_postponed = False
        self._teller, self._pusher = self._tellers(clock)

    def _tellers(self, clock: Clock) -> "tuple[AlertTeller | None, MetricsPusher | None]":
        config, mask = self._topology.config, self._topology.mask
        if config.alerts is None and config.metrics is None:
            return None, None
        # It takes along what speaks to the network and to programs, for the few who want to be told.
        from pipeline.flow.telling import AlertTeller, MetricsPusher

        teller = pusher = None
        if config.alerts is not None:
            teller = AlertTeller(config.alerts, self._topology.name, clock, self._events, mask)
        if config.metrics is not None:
            pusher = MetricsPusher(config.metrics, clock, self._events, self.measures, mask)
        return teller, pusher

    @property
    def alerts(self) -> list[str]:
        """What is wrong now, in words."""
        return self._teller.up if self._teller is not None else []

    @property
    def postponed(self) -> str:
        """Why the last checkpoint could not be taken, if it could not."""
        return self._checkpointer.postponed if self._checkpointer is not None else ""

    def begin(self, assembly: Assembly, checkpointer: Checkpointer | None) -> None:
        """Take note that the run begins."""
        self._assembly, self._checkpointer = assembly, checkpointer
        if self._teller is not None:
            run = assembly.run
            self._teller.begin(lineage=run.lineage, run=run.number, metadata=run.metadata)

    def start(self, group: "TaskGroup") -> None:
        """Start the tasks that tell others, in a group of their own; `rest` ends them."""
        for each in (self._teller, self._pusher):
            if each is not None:
                group.start_soon(each.run)

    def rest(self, group: "TaskGroup") -> None:
        """End what `start` started, once what is on its way has arrived; a few seconds are given for that."""
        tellers = [each for each in (self._teller, self._pusher) if each is not None]
        if not tellers:
            return
        from pipeline.flow.telling import ENDING

        for each in tellers:
            each.rest()
        group.cancel_scope.deadline = anyio.current_time() + ENDING

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take note of a log event: the breakers tell by these."""
        if name == "breaker":
            stage = str(fields.get("stage"))
            if fields.get("state") == "closed":
                self._open_since.pop(stage, None)
            else:
                # Half open is open still: nobody knows yet that anything gets through.
                self._open_since.setdefault(stage, self._seconds())

    def tick(self) -> None:
        """Look at the run."""
        self._window.add(self._counted())
        if bool(self.postponed) != self._was_postponed:
            self._was_postponed = not self._was_postponed
            text = f"no checkpoint could be taken: {self.postponed}; it is tried again"
            told = ("warning", text) if self._was_postponed else ("notice", "checkpoints are taken again")
            self._events.emit(told[0], text=told[1])
        if self._teller is not None:
            self._teller.look(self._seen())

    async def finish(self) -> None:
        """Tell others of the end, for a few seconds at most."""
        with anyio.CancelScope(shield=True):
            if self._teller is not None:
                # What cleared with the last records is over, and not only because the run is.
                self._teller.look(self._seen())
                self._teller.end(self._seconds())
                await self._teller.finish()
            if self._pusher is not None:
                await self._pusher.finish()

    def lately(self, seconds: float) -> Lately:
        """Return what the run did in its last seconds, up to an hour."""
        return self._window.lately(self._counted(), seconds)

    def measures(self) -> list[Metric]:
        """Return all metrics of the run at this moment."""
        if self._assembly is None:
            return measures(self._status(), (), {})
        run = self._assembly.run
        about = {"lineage": run.lineage, "run": run.number, **hidden(run.metadata, self._topology.mask)}
        laws = {batcher.name: batcher.law.status() for batcher in self._assembly.batchers}
        return measures(self._status(), run.metrics.values(), laws, about)

    def _counted(self) -> Counted:
        if self._assembly is None:
            return Counted()
        run, account = self._assembly.run, self._assembly.run.ledger.account
        batchers = [run.metrics[batcher.name] for batcher in self._assembly.batchers]
        return Counted(
            seconds=self._seconds(),
            read=account.read,
            ended=account.settled,
            failed=account.dead_lettered + account.collected + account.skipped,
            batches=sum(each.batches for each in batchers),
            batched=sum(each.records_out for each in batchers),
        )

    def _seen(self) -> Seen:
        assert self._assembly is not None
        assembly = self._assembly
        return Seen(
            self._counted(),
            {name: (each.number, each.unsettled) for name, each in assembly.run.ledger.frontiers.items()},
            dict(self._open_since),
            lambda source: whereabouts(assembly, source),
        )
