"""A batcher, its permits and the stations behind it in virtual time: a hundred seconds in a tenth of one.

Everything is drawn from seeds: two laws that are compared meet the same noise, batch by batch. The batcher here is
the one that the laws are written for: a batch fills while it waits for a permit, keeps the limit that it was opened
with unless that is raised, and closes as late as its budget allows.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from statistics import fmean, pstdev

from pipeline.control.law import Change, Law, Observation, permits_for

__all__ = ("Arrival", "Cost", "Done", "Run", "Station", "Trace", "poisson", "quantile", "saturated", "simulate")

Arrival = tuple[float, int, str]
"""When, how many records, and the key they share."""


@dataclass(frozen=True)
class Cost:
    """How long a batch takes: a fixed time and one for each record, with lognormal noise of mean 1, and disturbances.

    `change` gives the factors of both costs, `deviation_at` the deviation of the noise, by time. `spikes` is a share
    of batches and their factor, `first` a number of batches at the start and their factor, `once` the index of one
    batch and its factor, `pause` an interval and the seconds by which it holds up a batch in service at that moment.
    `shape` says what a size counts for. `correlation` is that of one batch's noise with the next.
    """

    fixed: float = 0.010
    per_record: float = 0.0001
    deviation: float = 0.1
    change: Callable[[float], tuple[float, float]] = lambda now: (1.0, 1.0)
    deviation_at: Callable[[float], float] | None = None
    spikes: tuple[float, float] = (0.0, 1.0)
    first: tuple[int, float] = (0, 1.0)
    once: tuple[int, float] = (-1, 1.0)
    pause: tuple[float, float] = (math.inf, 0.0)
    shape: Callable[[int], float] = float
    correlation: float = 0.0


@dataclass(frozen=True)
class Station:
    """A stage behind the batcher: what a batch costs there and how many it serves at once."""

    cost: Cost
    concurrency: int = 1


class _Server:
    """A station at work: first in, first out."""

    def __init__(self, station: Station, seed: int) -> None:
        self._cost = station.cost
        self.concurrency = station.concurrency
        self.busy = 0
        self.busy_seconds = 0.0
        self.mean: float | None = None
        self.queue: deque[_Batch] = deque()
        self._noise = Random(seed)
        self._luck = Random(seed + 1)
        self._level = 0.0
        self._index = 0

    def seconds(self, size: int, now: float) -> float:
        cost = self._cost
        fixed, per_record = cost.change(now)
        seconds = (cost.fixed * fixed + cost.per_record * per_record * cost.shape(size)) * self._factor(now)
        start, (interval, pause) = now, cost.pause
        if interval < math.inf:
            while (edge := (math.floor(start / interval) + 1) * interval) <= now + seconds:
                seconds, start = seconds + pause, edge
        # As an actor would measure it: a mean that follows.
        self.mean = seconds if self.mean is None else self.mean + 0.1 * (seconds - self.mean)
        self.busy_seconds += seconds
        return seconds

    def _factor(self, now: float) -> float:
        cost, index = self._cost, self._index
        self._index += 1
        deviation = cost.deviation if cost.deviation_at is None else cost.deviation_at(now)
        fresh = self._noise.gauss(0.0, 1.0)
        keep = cost.correlation
        self._level = keep * self._level + math.sqrt(1.0 - keep * keep) * fresh
        factor = math.exp(deviation * self._level - deviation * deviation / 2.0)
        if self._luck.random() < cost.spikes[0]:
            factor *= cost.spikes[1]
        if index < cost.first[0]:
            factor *= cost.first[1]
        return factor * cost.once[1] if index == cost.once[0] else factor


@dataclass(slots=True)
class _Batch:
    key: str
    limit: int
    opened: float
    size: int = 0
    parts: list[tuple[float, int, float]] = field(default_factory=list[tuple[float, int, float]])
    started: float = 0.0
    full: bool = False
    filled: float = math.inf
    permits: int = 1
    stage: int = 0
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that ended: `parts` are (admitted at, records, arrived at)."""

    started: float
    ended: float
    size: int
    limit: int
    full: bool
    parts: Sequence[tuple[float, int, float]]

    @property
    def service(self) -> float:
        """Seconds from dispatch to end."""
        return self.ended - self.started


@dataclass
class Trace:
    """What a run left behind."""

    done: list[Done] = field(default_factory=list[Done])
    limits: list[int] = field(default_factory=list[int])
    """The limit after each observation."""
    changes: list[tuple[float, int, Change]] = field(default_factory=list[tuple[float, int, Change]])
    """When, after how many observations, what."""
    most_held: int = 0
    most_in_flight: int = 0
    admitted: int = 0
    busy: float = 0.0

    def after(self, since: float) -> list[Done]:
        """Return the batches dispatched from `since` on."""
        return [batch for batch in self.done if batch.started >= since]

    def throughput(self, since: float, until: float) -> float:
        """Return the records a second that ended between two moments."""
        return sum(batch.size for batch in self.done if since <= batch.ended < until) / (until - since)

    def late_batches(self, target: float, since: float = 0.0) -> float:
        """Return the share of batches in service for longer than the target."""
        done = self.after(since)
        return sum(batch.service > target for batch in done) / max(1, len(done))

    def latencies(self, since: float = 0.0) -> list[tuple[float, int]]:
        """Return (seconds from admission to end, records), sorted."""
        return sorted((batch.ended - at, count) for batch in self.after(since) for at, count, _ in batch.parts)

    def variation(self, since: float) -> float:
        """Return the standard deviation of the limit over its mean, for batches dispatched from `since` on."""
        sizes = [batch.limit for batch in self.after(since)]
        return pstdev(sizes) / fmean(sizes)


def quantile(weighted: Sequence[tuple[float, int]], share: float) -> float:
    """Return the value that `share` of the weight does not exceed; `weighted` is sorted."""
    goal, seen = share * sum(count for _, count in weighted), 0
    for value, count in weighted:
        seen += count
        if seen >= goal:
            return value
    return math.nan


def saturated() -> Iterator[Arrival]:
    """Return a source that always has more: batches are full the moment they open."""
    return iter([(0.0, 2**62, "")])


def poisson(
    rate: Callable[[float], float], seed: int, until: float, keys: int = 1, chunk: float = 0.0005
) -> Iterator[Arrival]:
    """Yield records of a Poisson process of that many a second; at high rates every k-th moment of it, with k records.

    A rate of 0 is looked at again a hundredth of a second later.
    """
    random, now = Random(seed), 0.0
    while now < until:
        current = rate(now)
        if current <= 0.0:
            now += 0.01
            continue
        count = max(1, round(current * chunk))
        now += random.gammavariate(count, 1.0 / current)
        yield now, count, str(random.randrange(keys)) if keys > 1 else ""


class Run:
    """One law, one path of stations, one source, for so many virtual seconds.

    `path` is a list of steps, each a list of stations that all get the batch at once (more than one: a fan-out).
    `permits` None measures them as the batcher's actor does. Two mistakes can be made for comparison: `queue_counts`
    shows the law the wait in a channel upstream of so many records, and `permit_first` opens no batch before there is
    a permit for it.
    """

    def __init__(
        self,
        law: Law,
        path: Sequence[Sequence[Station]],
        arrivals: Iterable[Arrival],
        seconds: float,
        seed: int = 1,
        permits: int | None = None,
        queue_counts: int = 0,
        permit_first: bool = False,
    ) -> None:
        self.law = law
        self.trace = Trace()
        self.open: dict[str, _Batch] = {}
        self.in_flight = 0
        self._seconds = seconds
        self._permits = law.permits if law.permits is not None else permits
        self._queue_counts = queue_counts
        self._permit_first = permit_first
        self._path = [
            [_Server(station, seed * 1000 + 100 * step + 10 * branch) for branch, station in enumerate(branches)]
            for step, branches in enumerate(path)
        ]
        self._arrivals = iter(arrivals)
        self._backlog: deque[Arrival] = deque()
        self._calendar: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = 0
        self._timer = math.inf

    def run(self) -> Trace:
        """Go through all that happens in the time given; what is in flight then is not counted."""
        self._next_arrival()
        while self._calendar:
            now, _, action = heapq.heappop(self._calendar)
            if now > self._seconds:
                break
            action(now)
            self._pump(now)
        self.trace.busy = self._path[-1][-1].busy_seconds / self._seconds
        return self.trace

    def permits(self) -> int:
        """Return how many batches may be in flight now."""
        if self._permits is not None:
            return self._permits
        slowest = [max(branches, key=lambda server: server.mean or 0.0) for branches in self._path]
        return permits_for((server.mean or 0.0, server.concurrency) for server in slowest)

    def _at(self, when: float, action: Callable[[float], None]) -> None:
        self._order += 1
        heapq.heappush(self._calendar, (when, self._order, action))

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._at(arrival[0], lambda now: self._arrive(arrival))

    def _arrive(self, arrival: Arrival) -> None:
        self._backlog.append(arrival)
        self._next_arrival()

    def _pump(self, now: float) -> None:
        """Admit what there is room for and dispatch what may go, until neither is possible."""
        self._admit(now)
        while self.in_flight < self.permits():
            batch = self._closable(now)
            if batch is None:
                self._set_timer(now)
                return
            self._dispatch(batch, now)
            self._admit(now)

    def _admit(self, now: float) -> None:
        while self._backlog:
            at, count, key = self._backlog[0]
            batch = self.open.get(key)
            if batch is None:
                if self._permit_first and self.in_flight + len(self.open) >= self.permits():
                    return
                batch = self.open[key] = _Batch(key, self.law.limit, now)
            taken = min(count, batch.limit - batch.size)
            if not taken:
                return  # the upstream put blocks, whatever key comes behind
            batch.size += taken
            batch.parts.append((now, taken, at))
            if batch.size == batch.limit:
                batch.filled = min(batch.filled, now)
            self.law.arrived(taken, now)
            self.trace.admitted += taken
            if taken == count:
                self._backlog.popleft()
            else:
                self._backlog[0] = (at, count - taken, key)
            self.trace.most_held = max(self.trace.most_held, sum(held.size for held in self.open.values()))

    def _budget(self, batch: _Batch, now: float) -> float:
        return batch.parts[0][0] + self.law.linger(batch.size) - now

    def _closable(self, now: float) -> _Batch | None:
        """Return, of the batches that need not wait longer, the one with the least budget left."""
        best: tuple[float, _Batch] | None = None
        for batch in self.open.values():
            budget = self._budget(batch, now)
            ready = batch.size >= batch.limit or budget <= 1e-9 or not self.law.expects(budget)
            if ready and (best is None or budget < best[0]):
                best = (budget, batch)
        return best and best[1]

    def _set_timer(self, now: float) -> None:
        due = min((now + self._budget(batch, now) for batch in self.open.values()), default=math.inf)
        # Deadlines only move forward for a batch that grows, so an earlier timer that is still set merely looks again.
        if due < math.inf and not now < self._timer <= due:
            self._timer = due
            self._at(due, lambda now: None)

    def _dispatch(self, batch: _Batch, now: float) -> None:
        del self.open[batch.key]
        batch.started, batch.full, batch.permits = now, batch.size >= batch.limit, self.permits()
        self.in_flight += 1
        self.trace.most_in_flight = max(self.trace.most_in_flight, self.in_flight)
        self._enter(batch, now)

    def _enter(self, batch: _Batch, now: float) -> None:
        branches = self._path[batch.stage]
        batch.pending = len(branches)
        for server in branches:
            server.queue.append(batch)
            self._serve(server, now)

    def _serve(self, server: _Server, now: float) -> None:
        while server.queue and server.busy < server.concurrency:
            batch = server.queue.popleft()
            server.busy += 1
            self._at(now + server.seconds(batch.size, now), partial(self._leave, server, batch))

    def _leave(self, server: _Server, batch: _Batch, now: float) -> None:
        server.busy -= 1
        self._serve(server, now)
        batch.pending -= 1
        if batch.pending:
            return
        batch.stage += 1
        if batch.stage < len(self._path):
            self._enter(batch, now)
        else:
            self._end(batch, now)

    def _end(self, batch: _Batch, now: float) -> None:
        self.in_flight -= 1
        trace = self.trace
        trace.done.append(Done(batch.started, now, batch.size, batch.limit, batch.full, batch.parts))
        wait = batch.started - batch.parts[0][0]
        service = now - batch.started
        # Little's law: a channel that holds so many records makes each wait until as many have gone before it.
        wait += self._queue_counts * service / batch.size
        changes = self.law.observe(
            Observation(batch.size, service, wait, batch.full, batch.permits, batch.started > batch.filled)
        )
        trace.limits.append(self.law.limit)
        for held in self.open.values():
            held.limit = max(held.limit, self.law.limit)
        trace.changes.extend((now, len(trace.limits), change) for change in changes)


def simulate(
    law: Law,
    path: Sequence[Sequence[Station]],
    arrivals: Iterable[Arrival],
    seconds: float,
    seed: int = 1,
    permits: int | None = None,
    permit_first: bool = False,
) -> Trace:
    """Run a law once and return the trace."""
    return Run(law, path, arrivals, seconds, seed, permits, permit_first=permit_first).run()
