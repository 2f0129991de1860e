"""The actor of a batcher: gathers records, cuts batches as its law says, and owns the only timer."""

from collections.abc import Callable
from math import inf
from typing import Any

import anyio.lowlevel
from msgspec import Struct, field

from pipeline.batch import Batch, Ticket, exact_spans
from pipeline.control.adaptive import AdaptiveLaw
from pipeline.control.law import Law, Observation, permits_for
from pipeline.errors import ConfigError
from pipeline.flow.channel import Channel
from pipeline.flow.outlet import Outlet, batch_before, join
from pipeline.flow.run import YIELD_AFTER, Failure, Halt, Run
from pipeline.stage import Batcher
from pipeline.watch.metrics import BatcherMetrics, StageMetrics

__all__ = ("BatcherActor", "Leg")

_BRIEF = 0.0003
"""Seconds within which a batch is through: no more than it costs to switch from task to task for each by itself."""
_FIRST, _EVERY = 20, 8
"""Batches after each of which permits are counted anew, and later on after how many."""
_TOGETHER = 6
"""Such batches in flight: one switch does for several."""


class Leg(Struct):
    """One actor on the way from a batcher to the sinks: the counters of its stages, which take turns."""

    stages: list[StageMetrics]
    concurrency: int

    @property
    def seconds(self) -> float:
        """Seconds that a batch takes here."""
        return sum([stage.recent_seconds for stage in self.stages])


class _Open(Struct, eq=False):
    """A batch that is being gathered."""

    key: Any
    limit: int
    share: float = 1.0
    """What part of the law's limit that is."""
    pieces: list[Batch] = field(default_factory=list[Batch])
    count: int = 0
    size: int = 0
    oldest: float = 0.0
    queued: bool = False
    """Whether it had to wait for a permit after it was ready."""
    ready: float = 0.0
    """When it was ready and had to wait."""
    end: float = 0.0
    """When it will be through, once it is handed on, as far as the law can say."""
    held: bool = False
    """Whether it waited, in here or on its way, behind a batch that was tried again."""
    full: str = ""
    """Why it takes no more: "size", "bytes" or "key"; empty while it does."""

    def add(self, piece: Batch, now: float) -> None:
        if not self.pieces:
            self.oldest = now
        self.pieces.append(piece)
        self.count += len(piece.records)
        self.size += piece.size


class BatcherActor:
    """Runs one batcher. With ``by`` a batch is open for each key, all cut by one law."""

    def __init__(
        self,
        run: Run,
        name: str,
        spec: Batcher,
        law: Law,
        inbox: Channel,
        outlet: Outlet,
        paths: list[list[Leg]],
        key: Callable[[Any], Any] | None = None,
        order: Callable[[Any], Any] | None = None,
    ) -> None:
        self.name = name
        self.law = law
        self._run = run
        self._spec = spec
        self._inbox = inbox
        self._outlet = outlet
        self._paths = paths
        self._key = key
        self._order = order
        self._metrics = run.metrics[name]
        whole = getattr(spec, "latency_of", "record") == "record"
        self._told = self._metrics.batcher = BatcherMetrics(getattr(spec, "target_latency", None), whole)
        self._open: dict[Any, _Open] = {}
        # Batches that take no more and wait for a permit; while there is one, nothing more is taken from the inbox.
        self._full: list[_Open] = []
        self._hand: Batch | None = None
        self._in_flight: dict[Ticket, _Open] = {}
        self._permits = self.permits()
        """What `permits` said when it was last asked: as batches end, and when a stage is resized."""
        self._through = 0
        self._pressed = False
        self._flushing = False
        self._timer: Callable[[], None] | None = None
        self._yielded = 0.0
        """How long the stage behind had worked in this task when others last got a turn for certain."""
        self._due = 0.0
        """When the timer ends the wait."""
        self.bytes = 0
        """Bytes of the records that are gathered and not sent on."""

    async def run(self) -> None:
        """Gather and cut until the inbox has ended and the last batch is sent."""
        self._metrics.state = "running"
        self._metrics.limit = self.law.limit
        if self._key is None:
            self._inbox.taker = self._take_at_once
        try:
            while True:
                halt = self._fill()
                if halt is not None:
                    self._run.stop(halt)
                    self._inbox.abandon()
                    await self._flush_before_halt()
                    return
                closing = self._closing()
                if closing is not None:
                    await self._send(*closing)
                elif self._ended and not self._open and not self._full:
                    return
                else:
                    if not self._full and self._hand is None:
                        # Behind the stage that was just handed a batch, which is still in the cache.
                        self._inbox.release()
                    await self._wait()
        except Halt as halt:
            self._run.stop(halt)
            self._inbox.abandon()
        finally:
            self._inbox.taker = None
            self._inbox.release()
            self._stop_timer()
            self._metrics.state = "stopped"
            self._outlet.close()

    def press(self) -> None:
        """Send on what is gathered, and what is still on its way here, until no source waits for room any more."""
        if not self._pressed:
            self._pressed = True
            self._inbox.poke()

    def flush(self) -> None:
        """Send on what is gathered, by wish."""
        self._flushing = True
        self._inbox.poke()

    def gathered(self) -> list[Batch]:
        """Return what it holds and has not sent on."""
        pieces = [piece for each in (*self._full, *self._open.values()) for piece in each.pieces]
        return pieces if self._hand is None else [*pieces, self._hand]

    def resized(self, stage: str, concurrency: int) -> None:
        """Take note that a stage behind works on so many batches at a time."""
        for leg in {id(leg): leg for path in self._paths for leg in path}.values():
            if any(metrics.name == stage for metrics in leg.stages):
                leg.concurrency = concurrency
        self._permits = self.permits()
        self._inbox.poke()

    @property
    def has_target(self) -> bool:
        """Whether its batches are sized for a target latency."""
        return isinstance(self.law, AdaptiveLaw)

    def retarget(self, seconds: float) -> None:
        """Size batches for another target latency; an open one may still grow with it.

        :raises ConfigError: when the batcher has no target.
        """
        if not isinstance(self.law, AdaptiveLaw):
            raise ConfigError(f"stage '{self.name}' (batcher {self._metrics.kind}): it has no target latency")
        before = self.law.limit
        self.law.retarget(seconds)
        self._metrics.limit = self.law.limit
        self._raise_limits()
        self._run.events.emit("retarget", stage=self.name, target=seconds)
        if self.law.limit != before:
            self._run.events.emit("resize", stage=self.name, before=before, limit=self.law.limit, reason="target")
        self._inbox.poke()

    @property
    def _ended(self) -> bool:
        return self._hand is None and self._inbox.ended

    # --- gathering ---

    def _fill(self) -> Halt | None:
        """Take from the inbox what the open batches have room for; the rest waits there, as backpressure."""
        while not self._full:
            if self._hand is None:
                piece = self._inbox.take()
                if piece is None:
                    return None
                self._receive(piece)
                if self._key is not None:
                    halt = self._admit_by_key(piece)
                    if halt is not None:
                        return halt
                    continue
                self._hand = piece
            self._admit_from_hand()
        return None

    def _receive(self, piece: Batch) -> None:
        if piece.ticket is not None:
            piece.ticket.close()
            piece.ticket = None
        self._metrics.records_in += len(piece.records)

    def _take_at_once(self, piece: Batch) -> bool:
        """Gather a piece in the turn of who sends it, and wake up only for what follows from it."""
        if self._full or self._hand is not None:
            return False
        self._receive(piece)
        self._hand = piece
        while self._hand is not None and not self._full:
            self._admit_from_hand()
        if self._full:
            self._inbox.hold()
        if self._full or (
            # Without a permit nothing follows; whoever gives one back wakes us.
            len(self._in_flight) < self._permits and (self._when_due() < self._due or self._closing() is not None)
        ):
            self._inbox.poke()
        return True

    def _admit_from_hand(self) -> None:
        hand = self._hand
        if hand is None:
            return
        batch = self._batch_for(None)
        room = self._room(batch, hand)
        if room == 0:
            self._fill_up(batch, "bytes")
            return
        if room < len(hand.records):
            hand, self._hand = self._split(hand, room)
        else:
            self._hand = None
        self._add(batch, hand)

    def _batch_for(self, key: Any) -> _Open:
        batch = self._open.get(key)
        if batch is None:
            if len(self._open) >= self._spec.max_keys:
                oldest = min(self._open, key=lambda other: self._open[other].oldest)
                self._fill_up(self._open[oldest], "key")
            limit = self._limit()
            batch = self._open[key] = _Open(key, limit, limit / max(self.law.limit, 1))
        return batch

    def _limit(self) -> int:
        """Return how many records a batch may hold that is opened now."""
        law, permits = self.law, self._permits
        if permits < 2 or len(self._in_flight) < permits or not isinstance(law, AdaptiveLaw):
            return max(law.limit, 1)
        # It waits for the first of those under way, and is to end apart from the last of them.
        now = self._run.clock.now()
        ends = [gathered.end - now for gathered in self._in_flight.values()]
        return law.limit_between(max(0.0, min(ends)), max(0.0, *ends), permits)

    def _fill_up(self, batch: _Open, reason: str) -> None:
        batch.full = reason
        self._full.append(self._open.pop(batch.key))

    def _add(self, batch: _Open, piece: Batch) -> None:
        now = self._run.clock.now()
        self.law.arrived(len(piece.records), now)
        batch.add(piece, now)
        self.bytes += piece.size
        if batch.count >= batch.limit:
            self._fill_up(batch, "size")
        elif self.law.max_bytes is not None and batch.size >= self.law.max_bytes:
            self._fill_up(batch, "bytes")

    def _room(self, batch: _Open, piece: Batch) -> int:
        """Return how many records of a piece the open batch takes; 0 when the next one would pass its bytes."""
        room = min(batch.limit - batch.count, len(piece.records))
        if self.law.max_bytes is None or not piece.size:
            return room
        each = piece.size / len(piece.records)
        fit = int((self.law.max_bytes - batch.size) / each)
        # A record that is larger than the bound by itself goes alone.
        return min(room, max(fit, 0 if batch.count else 1))

    def _split(self, piece: Batch, at: int) -> tuple[Batch, Batch]:
        if not piece.ascending:
            return _split_exactly(self._run, piece, at)
        head, tail, shared = piece.split(at)
        self._run.ledger.share(shared)
        return head, tail

    def _admit_by_key(self, piece: Batch) -> Halt | None:
        """Put each record into the batch of its key. One key too many closes the batch that is the oldest."""
        groups, piece, halt = self._group_by_key(piece)
        parts = {key: piece.pick(indexes) for key, indexes in groups.items()}
        for part in parts.values():
            part.spans = exact_spans(part)
        self._settle_gaps(piece, list(parts.values()))
        self._share_between(list(parts.values()))
        for key, part in parts.items():
            self._admit_part(key, part)
        return halt

    def _group_by_key(self, piece: Batch) -> tuple[dict[Any, list[int]], Batch, Halt | None]:
        """Return the indexes of each key, and of the piece what comes before a record that stops the run."""
        assert self._key is not None
        groups: dict[Any, list[int]] = {}
        for index, record in enumerate(piece.records):
            try:
                key = self._key(record)
                groups.setdefault(key if key.__hash__ is not None else repr(key), []).append(index)
            except Exception as error:
                halt = self._run.fail(self.name, piece, index, Failure(record, error))
                if halt is not None:
                    head = batch_before(self._run, piece, index)
                    return (groups, head, halt) if head is not None else ({}, Batch([]), halt)
        return groups, piece, None

    def _admit_part(self, key: Any, part: Batch) -> None:
        rest: Batch | None = part
        while rest is not None:
            batch = self._batch_for(key)
            room = self._room(batch, rest)
            if room == 0:
                self._fill_up(batch, "bytes")
                continue
            piece, rest = (rest, None) if room >= len(rest.records) else _split_exactly(self._run, rest, room)
            self._add(batch, piece)

    def _settle_gaps(self, piece: Batch, parts: list[Batch]) -> None:
        """Settle the numbers of a piece none of whose records goes on: batches by key hold exactly what they carry."""
        carried = {number for part in parts for number in _numbers(part)}
        gaps = [
            (source, number, number + 1)
            for source, low, high in piece.spans
            for number in range(low, high)
            if (source, number) not in carried
        ]
        self._run.ledger.settle_spans(gaps)

    def _share_between(self, parts: list[Batch]) -> None:
        """A number with children in several batches has a share in each."""
        seen: set[tuple[str, int]] = set()
        for part in parts:
            numbers = _numbers(part)
            self._run.ledger.share(numbers & seen)
            seen |= numbers

    # --- cutting ---

    def _closing(self) -> tuple[_Open, str] | None:
        """Return the batch to be sent now, and why; None when there is none, or no permit for it.

        A permit goes to the batch with the least time left.
        """
        ready = [(batch, batch.full) for batch in self._full]
        ready += [(batch, reason) for batch in self._open.values() if (reason := self._reason(batch))]
        if not ready:
            return None
        if len(self._in_flight) >= self._permits:
            for batch, _ in ready:
                if not batch.queued:
                    batch.queued, batch.ready = True, self._run.clock.now()
            return None
        return min(ready, key=lambda pair: self._deadline(pair[0])) if len(ready) > 1 else ready[0]

    def _reason(self, batch: _Open) -> str:
        if self._ended:
            return "end"
        if self._flushing:
            return "flush"
        if self._pressed:
            if self._run.waiting_for_room:
                return "pressure"
            self._pressed = False
        now = self._run.clock.now()
        deadline = self._deadline(batch)
        if now >= deadline:
            return self._timed_reason
        # Nobody else is expected in time, and nobody waits at the door: then waiting helps nobody.
        if not len(self._inbox) and self._hand is None and not self._expects(batch, deadline - now):
            return "idle"
        return ""

    def _expects(self, batch: _Open, remaining: float) -> bool:
        witness = self._run.witness
        known = witness.expects(batch.count, self.permits()) if witness is not None and self.has_target else None
        if known is not None:
            return known
        return self.law.expects(remaining)

    @property
    def _timed_reason(self) -> str:
        return "latency" if hasattr(self._spec, "target_latency") else "linger"

    def _deadline(self, batch: _Open) -> float:
        return batch.oldest + self.law.linger(batch.count)

    def permits(self) -> int:
        """Return how many batches may be in flight: as many as keep the slowest stage behind busy."""
        if self.law.permits is not None:
            return self.law.permits
        longest: list[tuple[float, int]] = []
        most = -1.0
        for path in self._paths:
            stages = [(leg.seconds, leg.concurrency) for leg in path]
            total = sum([seconds for seconds, _ in stages])
            if total > most:
                longest, most = stages, total
        permits = permits_for(longest)
        if self.has_target:
            return permits
        # Without a target there is no harm in a batch that waits: the next of each worker is at hand.
        permits += max([concurrency for _, concurrency in longest if concurrency > 1], default=0)
        return max(permits, _TOGETHER) if 0 < most < _BRIEF else permits

    async def _send(self, gathered: _Open, reason: str) -> None:
        self._take(gathered)
        batch = join(self._run, gathered.pieces)
        gathered.pieces = []
        batch.trigger = reason
        batch.admitted = gathered.oldest
        self.bytes -= gathered.size
        if self._order is not None:
            halt = self._sort(batch)
            if halt is not None:
                raise halt
        self._count(batch, gathered, reason)
        outlet, clock = self._outlet, self._run.clock
        started, worked = clock.now(), outlet.worked
        await outlet.send(batch)
        self._metrics.waiting_out_seconds += clock.now() - started - (outlet.worked - worked)
        if outlet.worked - self._yielded > YIELD_AFTER:
            # Nothing need have waited where the stage behind works in this task, and gives nothing on.
            self._yielded = outlet.worked
            await anyio.lowlevel.checkpoint()

    def _take(self, gathered: _Open) -> None:
        if gathered.full:
            self._full.remove(gathered)
        else:
            del self._open[gathered.key]
        if not self._open and not self._full:
            self._flushing = False

    def _count(self, batch: Batch, gathered: _Open, reason: str) -> None:
        now = self._run.clock.now()
        size = len(batch.records)
        permits, share = self._permits, gathered.share
        # How long another batch was tried again is not what a size costs: such a wait counts as if it were for records.
        queued = gathered.queued and not gathered.held
        gathered.held = False

        def done(ticket: Ticket) -> None:
            del self._in_flight[ticket]
            self._metrics.in_flight = len(self._in_flight)
            self._through += size
            ended = self._told.through + 1
            # Times that are averaged over ten batches change slowly; a law with a target is to know at once.
            if self.has_target or ended < _FIRST or not ended % _EVERY:
                self._permits = self.permits()
            self._inbox.poke()
            smooth = ticket.smooth and not gathered.held
            if not ticket.smooth:
                for other in (*self._full, *self._open.values(), *self._in_flight.values()):
                    other.held = True
            full = gathered.full in ("size", "bytes")
            seen = Observation(size, self._run.clock.now() - now, now - gathered.oldest, full, permits, queued, share)
            self._told.done(seen.service, seen.wait, smooth)
            self._observe(seen, ticket, reason, smooth)

        if isinstance(self.law, AdaptiveLaw):
            gathered.end = now + self.law.predicted(size)
        batch.ticket = Ticket(done)
        self._in_flight[batch.ticket] = gathered
        self._metrics.in_flight = len(self._in_flight)
        self._told.sizes.observe(size)
        self._told.slot_wait.observe(now - gathered.ready if gathered.queued else 0.0)
        self._metrics.records_out += size
        self._metrics.took(now - gathered.oldest)
        self._metrics.triggers[reason] = self._metrics.triggers.get(reason, 0) + 1
        self._metrics.last_batch = size

    def _observe(self, seen: Observation, ticket: Ticket, trigger: str, smooth: bool) -> None:
        """Tell of a batch that is through; only from one that went smoothly does the law learn."""
        before = self.law.limit
        changes = self.law.observe(seen) if smooth else []
        if self.law.limit != before:
            self._metrics.limit = self.law.limit
            self._raise_limits()
        self._run.events.emit(
            "batch",
            stage=self.name,
            size=seen.size,
            seconds=seen.service,
            waited=seen.wait,
            limit=self.law.limit,
            total=self._through,
            rate=seen.size / max(seen.service, 1e-9),
            trigger=trigger,
            failed=ticket.failed,
            smooth=smooth,
        )
        for change in changes:
            self._told.resized(change.reason)
            if change.notable:
                self._run.events.emit(
                    "resize", stage=self.name, before=change.before, limit=change.limit, reason=change.reason
                )

    def _raise_limits(self) -> None:
        """Let batches that wait take more when the limit has risen; it never falls for a batch that is open.

        A batch that was filled while the law still doubled its limit would otherwise go as small as it was opened,
        and a cold start would take twice as many batches.
        """
        limit = self.law.limit
        for batch in self._open.values():
            batch.limit = max(batch.limit, int(limit * batch.share))
        for batch in self._full:
            raised = int(limit * batch.share)
            if batch.full == "size" and batch.count < raised and batch.key not in self._open:
                batch.limit, batch.full = raised, ""
                self._open[batch.key] = batch
        self._full = [batch for batch in self._full if batch.full]

    def _sort(self, batch: Batch) -> Halt | None:
        assert self._order is not None
        keys: list[Any] = []
        while len(keys) < len(batch.records):
            try:
                keys = list(map(self._order, batch.records))
                order = sorted(range(len(keys)), key=keys.__getitem__)
            except Exception as error:
                index = _first_failing(self._order, batch.records)
                halt = self._run.fail(self.name, batch, index, Failure(batch.records[index], error))
                if halt is not None:
                    return halt
                batch.keep([other != index for other in range(len(batch.records))])
                keys = []
                continue
            spans, ticket = batch.spans, batch.ticket
            sorted_batch = batch.pick(order)
            batch.records, batch.numbers = sorted_batch.records, sorted_batch.numbers
            batch.children, batch.sources = sorted_batch.children, sorted_batch.sources
            batch.spans, batch.ticket, batch.ascending = spans, ticket, False
        return None

    async def _flush_before_halt(self) -> None:
        for gathered in [*self._full, *self._open.values()]:
            await self._send(gathered, "end")

    # --- waiting ---

    async def _wait(self) -> None:
        started = self._run.clock.now()
        self._due = self._when_due()
        if self._due != inf and len(self._in_flight) < self._permits:
            self._timer = self._run.clock.call_at(self._due, self._inbox.poke)
        try:
            # A closed inbox has no news, and a full batch wants none: then only a permit or the time matters.
            await self._inbox.changed(data=not self._full and not self._inbox.ended)
        finally:
            self._stop_timer()
        self._metrics.waiting_in_seconds += self._run.clock.now() - started

    def _when_due(self) -> float:
        """Return when the first of the open batches has waited long enough."""
        due = inf
        for batch in self._open.values():
            due = min(due, self._deadline(batch))
        return due

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer()
            self._timer = None


def _numbers(part: Batch) -> set[tuple[str, int]]:
    return {(source, number) for source, low, high in part.spans for number in range(low, high)}


def _split_exactly(run: Run, piece: Batch, at: int) -> tuple[Batch, Batch]:
    """Split a batch whose numbers don't ascend: each part holds exactly the numbers that it carries."""
    head, tail = piece.pick(range(at)), piece.pick(range(at, len(piece.records)))
    head.spans, tail.spans = exact_spans(head), exact_spans(tail)
    carried = {(source, n) for source, low, high in head.spans + tail.spans for n in range(low, high)}
    gaps = [
        (source, n, n + 1) for source, low, high in piece.spans for n in range(low, high) if (source, n) not in carried
    ]
    run.ledger.settle_spans(gaps)
    in_head = {(source, n) for source, low, high in head.spans for n in range(low, high)}
    run.ledger.share(
        [(source, n) for source, low, high in tail.spans for n in range(low, high) if (source, n) in in_head]
    )
    return head, tail


def _first_failing(function: Callable[[Any], Any], records: list[Any]) -> int:
    """Return the index of the record that can't be sorted: its key fails, or can't be compared with the first's."""
    first: Any = None
    for index, record in enumerate(records):
        try:
            key = function(record)
            if index == 0:
                first = key
            _ = key < first
        except Exception:
            return index
    return len(records) - 1
