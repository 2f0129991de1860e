"""Whom a run tells how it fares: alerts as they are raised and cleared, metrics every so often. Never waited for."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from pipeline.clock import Clock
from pipeline.flow.outbound import Outbound
from pipeline.plan.watching import AlertsConfig, MetricsConfig
from pipeline.watch.alerts import Alarms, Alert, Seen
from pipeline.watch.events import Events
from pipeline.watch.exposition import CONTENT_TYPE, Metric, expose

__all__ = ("ENDING", "AlertTeller", "MetricsPusher")

_WAITING = 100
"""Alerts that wait for a slow receiver; of more the oldest are dropped, and that is said."""
ENDING = 5.0
"""Seconds that the end of a run waits for what is on its way, and then again for what is left to tell, at most."""


class AlertTeller:
    """Looks at a run, logs each alert, and hands it to whom the config names.

    ``look`` may be called in any turn and does not wait; ``run`` is the task that hands over, one alert at a time. An
    alert whose handing-over was cut short is not told again: it may well have arrived.
    """

    def __init__(
        self, config: AlertsConfig, pipeline: str, clock: Clock, events: Events, mask: Callable[[str], str]
    ) -> None:
        timeout: Any = config.timeout
        self._alarms = Alarms(config.rules())
        self._to = [Outbound(each, timeout) for each in (config.webhook, config.command) if each is not None]
        self._about: dict[str, Any] = {"pipeline": pipeline}
        self._clock = clock
        self._events = events
        self._mask = mask
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._news = anyio.Event()
        self._failing: set[int] = set()
        self._dropped = 0
        self._on_its_way = 0
        self._resting = False

    @property
    def up(self) -> list[str]:
        """What is wrong now, in words."""
        return self._alarms.up

    def begin(self, **about: Any) -> None:
        """Take note of what each alert says of the run."""
        self._about |= about

    def look(self, seen: Seen) -> None:
        """Judge the run as it is now."""
        for alert in self._alarms.look(seen):
            self._tell(alert)

    def end(self, now: float) -> None:
        """Tell of what is still wrong when the run ends, ``now`` seconds after its beginning."""
        for alert in self._alarms.end(now):
            self._tell(alert)

    async def run(self) -> None:
        """Hand over what there is to tell, until told to rest."""
        while not self._resting:
            await self._news.wait()
            self._news = anyio.Event()
            await self._hand_over()

    def rest(self) -> None:
        """Begin to hand over nothing more: what is on its way arrives, and ``run`` returns."""
        self._resting = True
        self._news.set()

    async def finish(self) -> None:
        """Hand over what is left, for a few seconds at most."""
        self._resting = False
        with anyio.move_on_after(ENDING):
            await self._hand_over()
        left = len(self._waiting) + self._on_its_way
        if left:
            self._warn(f"{left} alerts could not be handed over before the end of the run")

    def _tell(self, alert: Alert) -> None:
        fields = {"state": alert.state, "rule": alert.rule, "text": alert.text, "seconds": round(alert.seconds, 3)}
        self._events.emit("alert", **fields, about=alert.about, **alert.fields)
        if not self._to:
            return
        if len(self._waiting) == _WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append({"at": self._clock.wall(), **self._about, **fields, "about": alert.about, **alert.fields})
        self._news.set()

    async def _hand_over(self) -> None:
        while self._waiting and not self._resting:
            told = self._waiting.popleft()
            text = self._mask(json.dumps(told, default=str))
            self._on_its_way += 1
            async with anyio.create_task_group() as group:
                for place, receiver in enumerate(self._to):
                    group.start_soon(self._hand_to, place, receiver, text.encode(), told)
            self._on_its_way -= 1
        if self._dropped:
            self._warn(f"{self._dropped} alerts were dropped, because who is told is slow")
            self._dropped = 0

    async def _hand_to(self, place: int, receiver: Outbound, body: bytes, told: Mapping[str, Any]) -> None:
        environ = {f"ALERT_{name.upper()}": str(told[name]) for name in ("state", "rule", "pipeline")}
        problem = await receiver.tell(body, "application/json", environ)
        if problem and place not in self._failing:
            self._warn(f"an alert could not be handed to {receiver.title}: {problem}")
        (self._failing.add if problem else self._failing.discard)(place)

    def _warn(self, text: str) -> None:
        self._events.emit("warning", text=self._mask(text))


class MetricsPusher:
    """Pushes the metrics of a run every so often, and once more at its end."""

    def __init__(
        self,
        config: MetricsConfig,
        clock: Clock,
        events: Events,
        measure: Callable[[], Sequence[Metric]],
        mask: Callable[[str], str],
    ) -> None:
        timeout: Any = config.timeout
        every: Any = config.every
        self._to = Outbound(config.push, timeout)
        self._every: float = every
        self._clock = clock
        self._events = events
        self._measure = measure
        self._mask = mask
        self._failing = False
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Push until told to rest. A push that takes longer than the interval is not overtaken by the next."""
        with self._scope:
            while True:
                await self._clock.sleep(self._every)
                await self._push()

    def rest(self) -> None:
        """Push no more, nor go on with a push: the one at the end says more."""
        self._scope.cancel()

    async def finish(self) -> None:
        """Push the end of the run, for a few seconds at most."""
        with anyio.move_on_after(ENDING) as scope:
            await self._push()
        if scope.cancelled_caught:
            self._warn(f"no answer within {ENDING:g}s")

    async def _push(self) -> None:
        problem = await self._to.tell(expose(self._measure()).encode(), CONTENT_TYPE)
        if problem and not self._failing:
            self._warn(problem)
        self._failing = bool(problem)

    def _warn(self, problem: str) -> None:
        # Once for as long as it fails: whoever reads the log knows after the first.
        text = f"the metrics could not be pushed to {self._to.title}: {problem}; it is tried again at each interval"
        self._events.emit("warning", text=self._mask(text))
