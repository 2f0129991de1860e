"""Attempts at one piece of work: timeout, retries, and what is left when they are used up."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio

from pipeline.batch import Batch
from pipeline.cause import cause_of
from pipeline.control.policy import Kind, classify, meanings, retry_after
from pipeline.control.retry import Retries
from pipeline.errors import RecordErrors
from pipeline.flow.gate import Abandoned, Gate, Rest
from pipeline.flow.run import Run
from pipeline.stage import Processor, Sink

__all__ = ("Abandoned", "Attempts", "Outcome", "Spent", "Trial", "as_error")

T = TypeVar("T")


class Spent(Exception):
    """All attempts failed. ``error`` is the last one's, ``kind`` what it says about whose fault it is.

    ``since`` is the stage's last call before the first of these attempts. ``held`` says that the breaker was open when
    the last one failed: it speaks of the other side, not of the records, and did not count as an attempt. ``opened``
    is how often it had opened by then, ``started`` when the first of the attempts was begun.
    """

    def __init__(
        self,
        error: Exception,
        kind: Kind,
        attempts: int,
        since: int = 0,
        held: bool = False,
        opened: int = 0,
        started: float = 0.0,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.kind = kind
        self.attempts = attempts
        self.since = since
        self.held = held
        self.opened = opened
        self.started = started


class Outcome:
    """What became of an attempt that was made by the short way: what it returned, or what it raised.

    Only one that went well may end there. Any other is handed to the long way as its first attempt, with ``started``,
    when it was begun, and ``since``, the last call before it.
    """

    __slots__ = ("raised", "returned", "since", "started")

    def __init__(self, started: float, since: int, returned: Any = None, raised: Exception | None = None) -> None:
        self.started = started
        self.since = since
        self.returned = returned
        self.raised = raised


@dataclass(frozen=True, slots=True)
class Trial:
    """How a piece of work is tried: ``used`` attempts were made before; ``single`` gives it one more and no count of
    the breaker's; ``alone`` says that there is nothing else to try, so that its failures may open the breaker;
    ``stubborn`` that bad records are tried again, too, and ``named`` that this goes for `RecordErrors`. ``first`` is
    the outcome of an attempt that was made already: that is what the first call of the work repeats.
    """

    used: int = 0
    single: bool = False
    alone: bool = True
    stubborn: bool = False
    named: bool = False
    first: Outcome | None = None


@dataclass(slots=True)
class _Course:
    """How far the attempts at one piece of work have come."""

    trial: Trial
    batch: Batch | None
    since: int
    attempt: int
    started: float
    probing: bool = False


_FIRST = Trial()


class Attempts:
    """Makes the attempts of one stage. May be used by several tasks at a time."""

    def __init__(self, run: Run, name: str, spec: Processor | Sink, by_record: bool = False) -> None:
        self._run = run
        self._name = name
        self._metrics = run.metrics[name]
        self._by_record = by_record
        self._timeout: Any = spec.timeout
        retry = spec.retry
        first, longest = _bounds(retry.backoff) if retry is not None else (0.1, 10.0)
        deadline: Any = retry.deadline if retry is not None else None
        self.retries = Retries(retry.attempts if retry is not None else 1, first, longest, deadline)
        self._meant = meanings(retry.on) if retry is not None else {}
        self.gate = Gate(run, name, spec)
        self.direct = self._timeout is None and not self.gate
        """Whether nothing stands around a call: then a first attempt may be made with `directly`."""
        self.calls = 0
        """Calls that were begun so far: the number of the last one."""
        self._through = 0

    def got_through(self, since: int) -> bool:
        """Tell whether a call that was begun behind the call of this number has succeeded."""
        return self._through > since

    def was_down(self, spent: Spent) -> bool:
        """Tell whether something failed while the breaker was open, or just before it opened: then that is why."""
        return spent.held or spent.opened != self.gate.opened

    def has_more(self, used: int, started: float) -> bool:
        """Tell whether the attempts begun then, of which so many are made, ended only for the breaker's sake."""
        if self.gate.breaker is None:
            return False
        return self.retries.wait(used, self._run.clock.now() - started, lambda: 1.0) is not None

    def passed(self) -> None:
        """Count a call that was made elsewhere and got through."""
        self.calls += 1
        self._through = self.calls

    async def directly(self, work: Callable[[Batch], Awaitable[Any]], batch: Batch) -> Outcome:
        """Make a first attempt by the short way, for a stage whose calls are `direct`.

        Most batches need no other, and this costs a tenth of what `make` does. Whoever takes the outcome for good
        counts the attempt; otherwise `make` does, which is told of it.
        """
        since = self.calls
        started = self._run.clock.now()
        self.calls = call = since + 1
        try:
            returned = await work(batch)
        except BaseException as raised:
            if _is_the_end_of(raised):
                raise
            return Outcome(started, since, raised=as_error(raised))
        if call > self._through:
            self._through = call
        return Outcome(started, since, returned)

    @property
    def draining(self) -> bool:
        """Whether the run ends by wish."""
        return self._run.draining

    def kind_of(self, error: Exception) -> Kind:
        """Tell what an exception means here."""
        return classify(error, self._meant)

    async def make(
        self,
        work: Callable[[int], Awaitable[T]],
        batch: Batch | None = None,
        rest: Rest = nullcontext,
        trial: Trial = _FIRST,
    ) -> T:
        """Do the work, again as the policy allows; ``work`` is told which attempt it is, from 1.

        ``rest`` is entered while waiting for the next attempt, to give back what others could use meanwhile.

        :raises Spent: when every attempt failed, or the error is the record's own.
        :raises Abandoned: when a drain came while it waited.
        :raises StorageError, StageError: at once.
        """
        started = trial.first.started if trial.first is not None else self._run.clock.now()
        course = _Course(trial, batch, self.calls, trial.used, started)
        while True:
            await self._enter(course, rest)
            self.calls += 1
            call = self.calls
            self._metrics.attempts += 1
            try:
                if self._timeout is None:
                    result = await work(course.attempt)
                else:
                    with anyio.fail_after(self._timeout):
                        result = await work(course.attempt)
            except BaseException as raised:
                if _is_the_end_of(raised):
                    self._let_go(course)
                    raise
                wait = self._failed(as_error(raised), course)
            else:
                self._through = max(self._through, call)
                self.gate.succeeded()
                return result
            async with rest():
                await self.gate.pause(wait)

    async def again(self, used: int, errors: Iterable[Exception], rest: Rest = nullcontext) -> None:
        """Wait for a further attempt at what failed with these errors: as long as the longest of them asks for."""
        self._metrics.retries += 1
        wall = self._run.clock.wall()
        asked = max([seconds for error in errors if (seconds := retry_after(error, wall)) is not None], default=None)
        async with rest():
            await self.gate.pause(self.retries.wait(used, 0.0, random.random, asked) or 0.0)

    async def _enter(self, course: _Course, rest: Rest) -> None:
        gate = self.gate
        if gate:
            if gate.shut:
                _roughen(course.batch)
            course.probing = await gate.enter(rest)
        if course.attempt == course.trial.used:
            course.since = course.trial.first.since if course.trial.first is not None else self.calls
        course.attempt += 1

    def _failed(self, error: Exception, course: _Course) -> float:
        """Return how long to wait for the next attempt.

        :raises Spent: when there is none.
        """
        kind = self.kind_of(error)
        if kind is Kind.FAULT:
            self._let_go(course)
            raise error
        held, over = self._count(kind, error, course)
        wait = None if held or over else self._wait(kind, error, course)
        # A record that is bad by itself costs its batch no time; whatever else goes wrong does.
        if not (self._by_record and wait is None and kind is not Kind.UNAVAILABLE):
            _roughen(course.batch)
        if wait is None:
            attempts, opened = course.attempt - held, self.gate.opened
            raise Spent(error, kind, attempts, course.since, held, opened, course.started) from error
        if self._run.draining:
            raise Abandoned from error
        self._metrics.retries += 1
        self._run.events.emit("retry", stage=self._name, attempt=course.attempt, error=cause_of(error), wait=wait)
        return wait

    def _count(self, kind: Kind, error: Exception, course: _Course) -> tuple[bool, bool]:
        """Tell the breaker; return whether it was open, and whether the attempts end before it opens."""
        gate, breaker = self.gate, self.gate.breaker
        if breaker is None:
            return False, False
        if kind is not Kind.UNAVAILABLE:
            self._let_go(course)
            return False, False
        if gate.shut:
            gate.failed(course.probing, error)
            return True, False
        if course.trial.single:
            return False, True
        if breaker.at_the_brink and not course.trial.alone:
            # Whether it is the other side's fault is seen by trying other records first.
            return False, True
        gate.failed(False, error)
        return False, False

    def _let_go(self, course: _Course) -> None:
        if course.probing:
            self.gate.release()

    def _wait(self, kind: Kind, error: Exception, course: _Course) -> float | None:
        trial = course.trial
        if trial.single or (kind is Kind.RECORD and not (trial.named if _names(error) else trial.stubborn)):
            return None
        spent = self._run.clock.now() - course.started
        return self.retries.wait(course.attempt, spent, random.random, retry_after(error, self._run.clock.wall()))


def as_error(raised: BaseException) -> Exception:
    """Return what a function raised as an error of its record, also where it tried to end the program."""
    if isinstance(raised, Exception):
        return raised
    error = RuntimeError(f"the function raised {type(raised).__name__}{f' ({raised})' if str(raised) else ''}")
    error.__cause__ = raised
    return error


def _names(error: Exception) -> bool:
    return isinstance(error, RecordErrors)


def _roughen(batch: Batch | None) -> None:
    """Let nobody learn from the time of a batch."""
    if batch is not None and batch.ticket is not None:
        batch.ticket.smooth = False


def _is_the_end_of(raised: BaseException) -> bool:
    """Tell whether it is this task that is ended; otherwise a CancelledError is a function's own."""
    task = asyncio.current_task()
    cancelled = isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return cancelled or isinstance(raised, GeneratorExit)


def _bounds(backoff: Any) -> tuple[float, float]:
    if isinstance(backoff, tuple):
        return cast(tuple[float, float], backoff)
    return float(backoff), float(backoff)
