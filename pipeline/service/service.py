"""A pipeline that runs inside of an async program, as long as that needs it, and answers whoever submits a record."""

import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from pipeline.clock import Clock, SystemClock
from pipeline.errors import Closed, ConfigError, PipelineError
from pipeline.flow.steering import Steering
from pipeline.flow.supervisor import Supervisor, failure_of
from pipeline.plan.topology import Topology
from pipeline.service.answers import Answer, Answers, Caller, Counts, Turn
from pipeline.service.checks import check_many, check_priority, check_service, seconds_of, sink_of
from pipeline.service.entrance import Entrance
from pipeline.service.events import EventStream, ServiceEvent
from pipeline.stage import Feed
from pipeline.watch.events import Subscriber
from pipeline.watch.history import History
from pipeline.watch.report import Report, Status

if TYPE_CHECKING:
    from pipeline.pipeline import Pipeline

__all__ = ("Service",)

_PATIENCE = 0.5
"""The share of a drain's deadline in which waits for another attempt, a rate or an open breaker still go on."""


class Service:
    """A running pipeline to submit records to; made by `Pipeline.service`, started by ``async with``.

    Leaving it drains: what was submitted is answered or refused with a reason. All methods are for the event loop that
    it was started in.
    """

    def __init__(
        self,
        pipeline: "Pipeline",
        *,
        answer: str | None = None,
        fresh: bool = False,
        accept_changes: bool = False,
        clock: Clock | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> None:
        self._clock = clock or SystemClock()
        topology = pipeline.topology()
        self._topology = topology
        self._inlets = check_service(topology)
        self._sink = sink_of(topology, answer)
        self._answers = Answers(self._inlets, self._clock)
        self._supervisor = pipeline.supervisor(
            fresh=fresh,
            accept_changes=accept_changes,
            clock=clock,
            subscribers=(*subscribers, self._tell),
            witness=self._answers,
        )
        self._feeds: Mapping[str, Feed] = {}
        self._entrances: dict[str, Entrance] = {}
        self._group: TaskGroup | None = None
        self._began = anyio.Event()
        self._ended = anyio.Event()
        self._closed = "has not started; write `async with pipeline.service() as service`"
        self._report: Report | None = None
        self._failure: Exception | None = None
        self._started = False
        self._told = False
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._events = 0

    # --- its life ---

    async def __aenter__(self) -> "Service":
        """Start, and return when records can be submitted.

        :raises PipelineError: when the pipeline can't be started.
        """
        if self._group is not None:
            raise RuntimeError("a service starts once; `pipeline.service()` makes another")
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._run)
        try:
            await self._began.wait()
        except BaseException as error:
            await self._group.__aexit__(type(error), error, error.__traceback__)
            raise
        if self._failure is not None and not self._started:
            self._told = True
            await self._group.__aexit__(None, None, None)
            raise self._failure
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        """Drain, within the pipeline's deadline.

        :raises PipelineError: when the pipeline ended badly and `wait` or `drain` has not said so.
        """
        assert self._group is not None
        try:
            await self._drain(None)
        except BaseException as error:
            # Cancelled while it drains: then it ends at once.
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(type(error), error, error.__traceback__)
            raise
        # The group never sees what ended the body, or it would wrap it.
        await self._group.__aexit__(None, None, None)
        if self._failure is not None and not self._told and exc_info[0] is None:
            self._told = True
            raise self._failure

    def close(self, deadline: float | None = None) -> None:
        """Take no more records and begin to drain, without waiting for the end: `wait` does that."""
        if not self._ended.is_set():
            self._closed = "drains and takes no more records"
            self._supervisor.drain(deadline, _PATIENCE)

    async def drain(self, deadline: float | str | None = None) -> Report:
        """Take no more records, answer those that were taken, end, and return the report.

        ``deadline`` in seconds is the pipeline's when left out. Half of it belongs to waits for another attempt, a rate
        or an open breaker; then these are given up. Whoever is left at the end is told so.

        :raises PipelineError: when the pipeline ended badly, or not within the deadline.
        """
        await self._drain(None if deadline is None else seconds_of(deadline, "deadline"))
        return await self.wait()

    async def wait(self) -> Report:
        """Wait until the pipeline has ended, and return the report.

        :raises PipelineError: when it ended badly.
        """
        await self._ended.wait()
        if self._failure is not None:
            self._told = True
            raise self._failure
        assert self._report is not None
        return self._report

    # --- records ---

    async def submit(
        self,
        record: Any,
        *,
        deadline: float | str | None = None,
        priority: int = 0,
        durable: bool = False,
        answer: str | None = None,
        source: str | None = None,
    ) -> Answer:
        """Submit a record and return what became of it, when it is through all sinks.

        ``deadline`` is how many seconds the caller waits; when they have passed, the record is dropped before the next
        work on it. The highest ``priority`` is taken out of the line first. ``durable`` answers when a checkpoint
        covers the record. ``answer`` names the sink whose records are the answer, ``source`` the inlet, where there are
        several. Many may submit at a time; they share batches. One that is cancelled does not disturb the others.

        :raises RecordFailed: when the record failed; holds its error.
        :raises Overloaded: when as many wait as the inlet's ``capacity``.
        :raises DeadlinePassed: when the deadline came before the answer.
        :raises Closed: when the service drains, has ended or has failed.
        :raises Unfinished: when it ended before the record was through.
        """
        name, entrance = self._entrance(source)
        check_priority(priority)
        seconds = None if deadline is None else seconds_of(deadline, "deadline")
        turn = Turn()
        caller = Caller(record, turn, name, priority, self._wanted(answer), self._may_last(durable))
        await entrance.pass_through((caller,), turn, seconds)
        if caller.error is not None:
            raise caller.error
        return caller.answer()

    async def submit_many(
        self,
        records: Iterable[Any],
        *,
        deadline: float | str | None = None,
        priority: int = 0,
        durable: bool = False,
        answer: str | None = None,
        source: str | None = None,
    ) -> list[Answer]:
        """Submit records and return their answers in the same order, when all are through; arguments as of `submit`.

        What is wrong with one record is in the ``error`` of its answer. More than half of the inlet's capacity goes in
        bit by bit, so that others get in too.

        :raises Overloaded: when the inlet was full before the first record.
        :raises Closed: when the service took none.
        """
        name, entrance = self._entrance(source)
        check_priority(priority)
        check_many(records)
        seconds = None if deadline is None else seconds_of(deadline, "deadline")
        turn, sink, lasting = Turn(), self._wanted(answer), self._may_last(durable)
        callers = [Caller(record, turn, name, priority, sink, lasting) for record in records]
        await entrance.pass_through(callers, turn, seconds)
        return [caller.answer() for caller in callers]

    # --- watching ---

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._topology.name

    @property
    def topology(self) -> Topology:
        """The checked plan that runs."""
        return self._topology

    @property
    def supervisor(self) -> Supervisor:
        """The run underneath, for doors that show more of it."""
        return self._supervisor

    @property
    def accepts(self) -> bool:
        """Whether records can be submitted now."""
        return not self._closed

    def status(self) -> Status:
        """Return the pipeline as it is at this moment."""
        return self._supervisor.status()

    def counts(self) -> Counts:
        """Return what became of submitted records, up to this moment."""
        counts = self._answers.counts
        counts.waiting = sum(feed.waiting for feed in self._feeds.values())
        return counts

    def history(self) -> History:
        """Return the run over time, up to this moment."""
        return self._supervisor.history()

    def events(self, size: int = 1000) -> EventStream:
        """Return the log events from now on, for one reader that may be up to ``size`` of them behind.

        A slower one loses the oldest, and is told by an event ``lost`` with their ``count``. Ends with the service.
        """
        stream = EventStream(size)
        if self._ended.is_set():
            stream.close()
        else:
            self._streams.add(stream)
        return stream

    # --- steering ---

    async def pause(self) -> None:
        """Read no further for now; what is under way goes on, and what is submitted waits in line."""
        self._supervisor.pause()

    async def resume(self) -> None:
        """Read on."""
        self._supervisor.resume()

    async def flush(self) -> None:
        """Let every batcher send on what it has gathered."""
        self._supervisor.flush()

    async def resize(self, stage: str, concurrency: int) -> None:
        """Let a stage work on so many batches at a time from its next batch on (records, if it takes them singly).

        :raises ConfigError: when there is no such stage, or it can't.
        """
        self._running().resize(stage, concurrency)

    async def retarget(self, latency: float | str, batcher: str | None = None) -> None:
        """Let adaptive batchers, or the one that is named, size batches for another target latency in seconds.

        :raises ConfigError: when there is no such batcher, or it has no target.
        """
        self._running().retarget(seconds_of(latency, "latency"), batcher)

    # --- inside: the run ---

    async def _run(self) -> None:
        try:
            self._report = await self._supervisor.run()
            self._failure = failure_of(self._report)
        except PipelineError as error:
            self._failure = error
        finally:
            self._end()

    def _tell(self, name: str, fields: Mapping[str, Any]) -> None:
        if name == "started":
            self._start()
        self._events += 1
        if self._streams:
            event = ServiceEvent(self._events, name, dict(fields), self._clock.wall())
            for stream in self._streams:
                stream.put(event)

    def _start(self) -> None:
        self._feeds = self._supervisor.feeds()
        for name, feed in self._feeds.items():
            feed.numbered = partial(self._answers.numbered, name)
            self._entrances[name] = Entrance(self.name, feed, self._answers, self._clock, lambda: self._closed)
        self._answers.waiting = lambda: sum(feed.waiting for feed in self._feeds.values())
        self._answers.request_cut = self._supervisor.cut_soon
        self._closed = ""
        self._started = True
        self._began.set()

    def _end(self) -> None:
        if self._report is None and self._failure is None:
            self._failure = PipelineError(f"service '{self.name}' was cancelled")
        why = f"has failed: {self._failure}" if self._failure is not None else "has ended"
        self._closed = why
        for feed in self._feeds.values():
            for place in feed.withdraw_all():
                if isinstance(place, Caller):
                    self._answers.refuse(place, Closed(f"service '{self.name}' {why}"))
        self._answers.end(
            f"service '{self.name}' {why} before the record was through; it may have been written, or not"
        )
        for stream in self._streams:
            stream.close()
        self._began.set()
        self._ended.set()

    async def _drain(self, deadline: float | None) -> None:
        self.close(deadline)
        await self._ended.wait()

    def _running(self) -> Steering:
        if not self._started or self._ended.is_set():
            raise self._refusal()
        return self._supervisor.steering

    # --- inside: submitting ---

    def _entrance(self, source: str | None) -> tuple[str, Entrance]:
        if not self._inlets:
            raise ConfigError(f"pipeline '{self.name}' has no inlet to submit to; begin it with sources.Inlet()")
        if source is None and len(self._inlets) > 1:
            raise ConfigError(f"pipeline '{self.name}' has several inlets; submit(..., source=) says which")
        name = next(iter(self._inlets)) if source is None else source
        if name not in self._inlets:
            raise ConfigError(f"pipeline '{self.name}' has no inlet '{name}', but {', '.join(self._inlets)}")
        if self._closed:
            self._answers.counts.refused += 1
            raise self._refusal()
        return name, self._entrances[name]

    def _wanted(self, answer: str | None) -> str | None:
        return self._sink if answer is None else sink_of(self._topology, answer)

    def _may_last(self, durable: bool) -> bool:
        if durable and self._topology.checkpoint_path is None:
            raise ConfigError(
                f"pipeline '{self.name}' has no state file, so nothing is durable; give it checkpoint={{'path': ...}}"
            )
        return durable

    def _refusal(self) -> Closed:
        return Closed(f"service '{self.name}' {self._closed}")
