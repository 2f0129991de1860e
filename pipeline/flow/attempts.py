"""Attempts at one piece of work: timeout, retries, and what is left when they are used up."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar, cast

import anyio

from pipeline.batch import Batch
from pipeline.cause import cause_of
from pipeline.control.policy import Kind, classify
from pipeline.control.retry import Retries
from pipeline.errors import Unavailable
from pipeline.flow.run import Run
from pipeline.stage import Processor, Sink

__all__ = ("Abandoned", "Attempts", "Spent", "as_error")

T = TypeVar("T")


class Spent(Exception):
    """All attempts failed. ``error`` is the last one's, ``kind`` what it says about whose fault it is."""

    def __init__(self, error: Exception, kind: Kind, attempts: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.kind = kind
        self.attempts = attempts


class Abandoned(Exception):
    """A drain came while an attempt was waited for: the records stay unsettled and are read again."""


class Attempts:
    """Makes the attempts of one stage. May be used by several tasks at a time."""

    def __init__(self, run: Run, name: str, spec: Processor | Sink, by_record: bool = False) -> None:
        self._run = run
        self._name = name
        self._by_record = by_record
        self._timeout: Any = spec.timeout
        retry = spec.retry
        first, longest = _bounds(retry.backoff) if retry is not None else (0.1, 10.0)
        deadline: Any = retry.deadline if retry is not None else None
        self.retries = Retries(retry.attempts if retry is not None else 1, first, longest, deadline)

    async def make(
        self,
        work: Callable[[int], Awaitable[T]],
        batch: Batch | None = None,
        rest: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
        retries: Retries | None = None,
    ) -> T:
        """Do the work, again as the policy allows; ``work`` is told which attempt it is, from 1.

        ``rest`` is entered while waiting for the next attempt, to give back what others could use meanwhile.

        :raises Spent: when every attempt failed, or the error is the record's own.
        :raises Abandoned: when a drain came while it waited.
        :raises StorageError, StageError: at once.
        """
        policy = retries or self.retries
        metrics = self._run.metrics[self._name]
        started = self._run.clock.now()
        attempt = 0
        while True:
            attempt += 1
            metrics.attempts += 1
            try:
                if self._timeout is None:
                    return await work(attempt)
                with anyio.fail_after(self._timeout):
                    return await work(attempt)
            except BaseException as raised:
                if _is_the_end_of(raised):
                    raise
                error = as_error(raised)
                kind = classify(error)
                if kind is Kind.FAULT:
                    raise
                asked = error.retry_after if isinstance(error, Unavailable) else None
                spent = self._run.clock.now() - started
                wait = None if kind is Kind.RECORD else policy.wait(attempt, spent, random.random, asked)
                # A record that is bad by itself costs its batch no time; whatever else goes wrong does.
                spares = self._by_record and wait is None and kind is not Kind.UNAVAILABLE
                if batch is not None and batch.ticket is not None and not spares:
                    batch.ticket.smooth = False
                if wait is None:
                    raise Spent(error, kind, attempt) from error
                if self._run.draining:
                    raise Abandoned from error
                metrics.retries += 1
                self._run.events.emit("retry", stage=self._name, attempt=attempt, error=cause_of(error), wait=wait)
            async with rest():
                await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        """Wait for the next attempt, unless a drain comes."""
        with anyio.CancelScope() as scope:
            self._run.on_drain.append(scope.cancel)
            try:
                await self._run.clock.sleep(seconds)
            finally:
                self._run.on_drain.remove(scope.cancel)
        if self._run.draining:
            raise Abandoned


def as_error(raised: BaseException) -> Exception:
    """Return what a function raised as an error of its record, also where it tried to end the program."""
    if isinstance(raised, Exception):
        return raised
    error = RuntimeError(f"the function raised {type(raised).__name__}{f' ({raised})' if str(raised) else ''}")
    error.__cause__ = raised
    return error


def _is_the_end_of(raised: BaseException) -> bool:
    """Tell whether it is this task that is ended; otherwise a CancelledError is a function's own."""
    task = asyncio.current_task()
    cancelled = isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return cancelled or isinstance(raised, GeneratorExit)


def _bounds(backoff: Any) -> tuple[float, float]:
    if isinstance(backoff, tuple):
        return cast(tuple[float, float], backoff)
    return float(backoff), float(backoff)
