"""The gate before a stage's calls: its rate limit and its circuit breaker, and the waits that a drain ends."""

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from pipeline.batch import Batch
from pipeline.cause import cause_of
from pipeline.control.breaker import Breaker
from pipeline.control.limiter import Limiter
from pipeline.flow.run import Run
from pipeline.stage import Processor, Sink

__all__ = ("Abandoned", "Gate", "Rest")

Rest = Callable[[], AbstractAsyncContextManager[Any]]
"""Entered while something is waited for, to give back what others could use meanwhile."""


class Abandoned(Exception):
    """A drain came while something was waited for: what is not done yet stays unsettled and is read again.

    ``done`` is the part of the batch before that, if there is one; it goes on.
    """

    def __init__(self, done: Batch | None = None) -> None:
        super().__init__("a drain came")
        self.done = done


class Gate:
    """Lets the calls of one stage through, one bucket and one breaker for all of its tasks."""

    def __init__(self, run: Run, name: str, spec: Processor | Sink) -> None:
        self._run = run
        self._name = name
        self._metrics = run.metrics[name]
        limit, breaker = spec.rate_limit, spec.circuit_breaker
        rate: Any = limit.rate if limit is not None else 0.0
        reset: Any = breaker.reset if breaker is not None else 0.0
        self._reset = float(reset)
        self._limiter = Limiter(rate, limit.burst, run.clock.now()) if limit is not None else None
        if self._limiter is not None and run.shared:
            self._limiter.empty()
        self.breaker = Breaker(breaker.failures, self._reset) if breaker is not None else None
        self._metrics.breaker = self.breaker.state if self.breaker is not None else ""
        self.opened = 0
        """How often the breaker opened, probes that failed not counted."""
        # Who waits before the open breaker, in the order of coming: the first makes the probe.
        self._line: deque[object] = deque()
        self._wakes: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return self.breaker is not None or self._limiter is not None

    @property
    def shut(self) -> bool:
        """Whether a call would have to wait for the breaker."""
        return self.breaker is not None and self.breaker.state != "closed"

    async def enter(self, rest: Rest) -> bool:
        """Wait until a call may be made; returns whether it is the probe of an open breaker.

        :raises Abandoned: when a drain came meanwhile.
        """
        while True:
            probe = await self._pass_breaker(rest) if self.shut else False
            if self._limiter is None:
                return probe
            wait = self._limiter.take(self._run.clock.now(), self._run.rates)
            if wait > 0:
                self._metrics.throttled_seconds += wait
                try:
                    async with rest():
                        await self.pause(wait)
                except BaseException:
                    if probe:
                        # Whoever waits behind it would wait for its answer for ever.
                        self.release()
                    raise
            if probe or not self.shut:
                return probe
            # It opened meanwhile: the call is not made now, and a token must not be spent twice.
            self._limiter.give_back()

    async def pause(self, seconds: float | None, *, woken: bool = False) -> None:
        """Wait so long (None: for ever), or until the breaker changes if ``woken``.

        :raises Abandoned: when there is a drain.
        """
        if not self._run.draining:
            with anyio.CancelScope() as scope:
                self._run.on_drain.append(scope.cancel)
                if woken:
                    self._wakes.append(scope.cancel)
                try:
                    await (anyio.sleep_forever() if seconds is None else self._run.clock.sleep(seconds))
                finally:
                    self._run.on_drain.remove(scope.cancel)
                    if woken:
                        self._wakes.remove(scope.cancel)
        if self._run.draining:
            raise Abandoned

    # --- what became of a call ---

    def succeeded(self) -> None:
        """Note a call that got through."""
        if self.breaker is not None and self.breaker.succeeded():
            self._changed()

    def failed(self, probe: bool, error: Exception) -> None:
        """Note a call that found the other side unavailable."""
        if self.breaker is not None and self.breaker.failed(self._run.clock.now(), probe):
            self._changed(error)

    def trip(self, error: Exception) -> None:
        """Open the breaker, because nothing gets through."""
        if self.breaker is not None and self.breaker.trip(self._run.clock.now()):
            self._changed(error)

    def release(self) -> None:
        """Take note that a probe ended without saying whether the other side is there."""
        if self.breaker is not None:
            self.breaker.release()
            self._tell_state()
            self._wake()

    async def _pass_breaker(self, rest: Rest) -> bool:
        breaker, clock = self.breaker, self._run.clock
        assert breaker is not None
        me, came = object(), clock.now()
        self._line.append(me)
        try:
            async with rest():
                while breaker.state != "closed" and not (self._line[0] is me and breaker.admit(clock.now())):
                    await self.pause(breaker.wait(clock.now()) if self._line[0] is me else None, woken=True)
                probe = breaker.state != "closed"
        finally:
            self._metrics.held_seconds += clock.now() - came
            self._line.remove(me)
            self._wake()
        if probe:
            self._tell_state()
        return probe

    def _wake(self) -> None:
        for wake in list(self._wakes):
            wake()

    def _tell_state(self) -> None:
        if self.breaker is not None:
            self._metrics.breaker = self.breaker.state

    def _changed(self, error: Exception | None = None) -> None:
        """Tell that the breaker opened or closed; a probe that failed is told as open again."""
        before = self._metrics.breaker
        self._tell_state()
        state = self._metrics.breaker
        if before == "closed" and state == "open":
            self._metrics.breaker_opened = self.opened = self.opened + 1
        because = {"error": cause_of(error), "reset": self._reset} if error is not None else {}
        self._run.events.emit("breaker", stage=self._name, state=state, **because)
        self._wake()
