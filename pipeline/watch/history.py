"""The time series of a run: a few hundred samples however long it gets, and what a run's report keeps of them.

A sample covers a stretch of time. It is closed by the first batch, or the first look of the supervisor, after its
width has passed; when there are too many, neighbours are merged and the width doubles. So a run of a second is seen
in hundredths, one of a day in minutes, at no more than a look in ten milliseconds and some counting per batch.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field

from pipeline.watch.sketch import Sketch
from pipeline.watch.summary import TURNS, BatcherSummary, Resize, StageTraits, Summary, settings_of, traits_of

__all__ = ("BatcherSample", "History", "Look", "Recorder", "Sample")

_SAMPLES = 600
_WIDTH = 0.025
_RESIZES = 200
_TOLD = 10
_UNTAINTED = 12
"""Batches before an alarm whose model may already know of what the alarm is about."""
_CLIMB_GAP = 50
"""Batches after which a rise of the limit is no longer part of the climb at the beginning."""
_WORTH_A_CAUSE = 1.3
"""A smaller change of a batch's time is within what the stages' own noise adds up to."""
_MUST_MOVE = 0.5
"""Twice the share of the work behind a batcher that a stage must have gained or lost to be named for a change."""
_AROUND = 20
"""Samples before and after a change that are compared to find the stage it came from."""


class Look(Struct):
    """A run at one moment: seconds since its beginning, records so far, and by name what its parts say.

    ``busy`` are the seconds each stage has worked, divided by its concurrency; ``laws`` the status of each batcher's
    law; ``triggers`` why each batcher has cut its batches.
    """

    seconds: float
    settled: int = 0
    unsettled: int = 0
    fills: Mapping[str, float] = field(default_factory=dict[str, float])
    busy: Mapping[str, float] = field(default_factory=dict[str, float])
    laws: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    triggers: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])


class BatcherSample(Struct):
    """What a batcher did in a sample. Latencies are those that its target is about; ``over`` counts batches."""

    batches: int = 0
    records: int = 0
    over: int = 0
    limit: int = 0
    linger: float = 0.0
    fixed: float = 0.0
    per_record: float = 0.0
    headroom: float = 0.0
    latencies: Sketch = field(default_factory=Sketch)
    sizes: Sketch = field(default_factory=Sketch)
    triggers: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def size(self) -> float:
        """Records in a batch, on average."""
        return self.records / self.batches if self.batches else 0.0

    def merge(self, later: "BatcherSample") -> None:
        """Cover the next sample too."""
        self.batches += later.batches
        self.records += later.records
        self.over += later.over
        self.limit, self.linger = later.limit, later.linger
        self.fixed, self.per_record, self.headroom = later.fixed, later.per_record, later.headroom
        self.latencies.merge(later.latencies)
        self.sizes.merge(later.sizes)
        for trigger, count in later.triggers.items():
            self.triggers[trigger] = self.triggers.get(trigger, 0) + count


class Sample(Struct):
    """A stretch of a run, in seconds since its beginning. ``fills`` are means, ``unsettled`` is the most seen.

    ``busy`` is the share of the stretch that each stage worked; work is counted when it is done, so a long batch may
    show as more than 1.
    """

    start: float
    end: float = 0.0
    settled: int = 0
    unsettled: int = 0
    fills: dict[str, float] = field(default_factory=dict[str, float])
    busy: dict[str, float] = field(default_factory=dict[str, float])
    batchers: dict[str, BatcherSample] = field(default_factory=dict[str, BatcherSample])

    @property
    def seconds(self) -> float:
        """How long it is."""
        return max(self.end - self.start, 1e-9)

    @property
    def throughput(self) -> float:
        """Records settled a second."""
        return self.settled / self.seconds

    def merge(self, later: "Sample") -> None:
        """Cover the next sample too."""
        here, there = self.seconds, later.seconds
        for mine, other in ((self.fills, later.fills), (self.busy, later.busy)):
            for name, value in other.items():
                mine[name] = (mine.get(name, value) * here + value * there) / (here + there)
        self.end = later.end
        self.settled += later.settled
        self.unsettled = max(self.unsettled, later.unsettled)
        for name, batcher in later.batchers.items():
            if name in self.batchers:
                self.batchers[name].merge(batcher)
            else:
                self.batchers[name] = batcher


class History(Struct):
    """A run over time: its samples in order, the newest resizes and turns, and what all of it amounts to."""

    samples: list[Sample]
    resizes: list[Resize]
    summary: Summary


class _Model(Struct, frozen=True):
    """What a law had learned of a batch's time after so many batches."""

    batches: int
    fixed: float
    per_record: float

    def predict(self, size: float) -> float:
        return self.fixed + self.per_record * size


class _Batcher(Struct):
    """What is known of a batcher besides its samples."""

    summary: BatcherSummary
    target: float | None
    whole: bool
    resizes: deque[Resize] = field(default_factory=lambda: deque[Resize](maxlen=_RESIZES))
    turns: deque[tuple[Resize, "_Model | None"]] = field(
        default_factory=lambda: deque[tuple[Resize, "_Model | None"]](maxlen=_TOLD)
    )
    """Each with what the law had learned well before it."""
    models: deque[_Model] = field(default_factory=lambda: deque[_Model](maxlen=64))
    streak: int = 0
    """Batches over the target, one after the other, up to now."""
    unrest: Resize | None = None
    """A change for the worse after which no batch has kept within the target yet."""
    climbing: bool = True


class Recorder:
    """Watches one run. Subscribe `event` to its events, and call `tick` now and then.

    ``now`` returns the seconds since the run began, ``look`` the run at this moment, ``specs`` are its stages by name.
    """

    def __init__(self, now: Callable[[], float], look: Callable[[], Look], specs: Mapping[str, object]) -> None:
        self._now = now
        self._look = look
        self._width = _WIDTH
        self._samples: list[Sample] = []
        self._sample = Sample(0.0)
        self._last = Look(0.0)
        self._begun = False
        self._started = 0.0
        self._order = list(specs)
        self._stages = {name: traits_of(spec) for name, spec in specs.items() if not _is_batcher(spec)}
        self._batchers = {name: _batcher(name, spec) for name, spec in specs.items() if _is_batcher(spec)}

    def begin(self, wall: float) -> None:
        """Take note that the run begins; ``wall`` is the time in seconds since 1970."""
        self._begun = True
        self._started = wall
        self._last = self._look()
        self._sample = Sample(self._last.seconds)
        for name, law in self._last.laws.items():
            summary = self._batchers[name].summary
            summary.start = summary.last = int(law.get("limit", 0))
            summary.warm = law.get("model_fixed_seconds", 0.0) + law.get("model_per_record_seconds", 0.0) > 0

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take note of a log event; all but three kinds are none of our business."""
        if name == "batch" and self._begun:
            self._batch(self._batchers[fields["stage"]], fields)
            self.tick()
        elif name == "resize" and self._begun:
            self._resize(self._batchers[fields["stage"]], fields)
        elif name == "retarget":
            batcher = self._batchers[fields["stage"]]
            batcher.target = batcher.summary.settings["target_latency"] = fields["target"]

    def tick(self) -> None:
        """Close the sample if it is long enough."""
        if self._begun and self._now() - self._sample.start >= self._width:
            self._close()

    def end(self) -> None:
        """Take note that the run has ended: what comes after is not part of it."""
        self._settle()
        self._begun = False

    def history(self) -> History:
        """Return what was recorded up to now."""
        self._settle()
        for batcher in self._batchers.values():
            self._follow_up(batcher)
        resizes = sorted((each for batcher in self._batchers.values() for each in _kept(batcher)), key=_when)
        return History(list(self._samples), resizes, self._summary())

    def _settle(self) -> None:
        if self._begun and self._now() > self._sample.start:
            self._close()

    def _follow_up(self, batcher: _Batcher) -> None:
        """Say of each turn what came of it: that shows only later."""
        end = math.inf
        for turn, base in reversed(batcher.turns):
            after = [
                sample.batchers[turn.batcher]
                for sample in self._samples
                if turn.seconds <= sample.start and sample.end <= end and turn.batcher in sample.batchers
            ]
            sizes = Sketch()
            for sample in after:
                sizes.merge(sample.sizes)
            turn.settled = round(sizes.quantile(0.5))
            later = _settled_model(after)
            if base is not None and later is not None:
                turn.factor = later.predict(turn.before) / base.predict(turn.before)
            turn.stage = self._cause(turn)
            end = turn.seconds

    def _batch(self, batcher: _Batcher, fields: Mapping[str, Any]) -> None:
        summary = batcher.summary
        sample = self._sample.batchers.get(summary.name)
        if sample is None:
            sample = self._sample.batchers[summary.name] = BatcherSample()
        size: int = fields["size"]
        latency: float = fields["seconds"] + (fields["waited"] if batcher.whole else 0.0)
        sample.batches += 1
        sample.records += size
        sample.limit = fields["limit"]
        sample.sizes.add(size)
        sample.latencies.add(latency)
        late = batcher.target is not None and latency > batcher.target
        sample.over += late
        if not fields.get("smooth", True):
            # The plots see it; what is said of the law, which learned nothing from it, leaves it out.
            return
        if not summary.batches:
            summary.first_size, summary.first_seconds = size, fields["seconds"]
        summary.batches += 1
        summary.records += size
        summary.over += late
        self._follow_unrest(batcher, late)

    def _follow_unrest(self, batcher: _Batcher, late: bool) -> None:
        batcher.streak = batcher.streak + 1 if late else 0
        if batcher.unrest is None:
            return
        if late:
            batcher.unrest.late += 1
        else:
            batcher.unrest = None

    def _resize(self, batcher: _Batcher, fields: Mapping[str, Any]) -> None:
        summary = batcher.summary
        change = Resize(
            batcher=summary.name,
            seconds=self._now(),
            before=fields["before"],
            limit=fields["limit"],
            reason=fields["reason"],
            batches=summary.batches,
        )
        base = _base(batcher, change) if change.reason in ("slower", "faster") else None
        if base is not None:
            now = _model(summary, self._look().laws[summary.name])
            change.factor = now.predict(change.before) / base.predict(change.before)
        if change.reason == "slower":
            change.late = batcher.streak
            batcher.unrest = change if batcher.streak else None
        summary.resizes[change.reason] = summary.resizes.get(change.reason, 0) + 1
        if batcher.climbing:
            batcher.climbing = _climbs(summary, change)
        batcher.resizes.append(change)
        if change.reason in TURNS:
            batcher.turns.append((change, base))
            batcher.models.clear()

    def _close(self) -> None:
        """End the sample with a look at the run, and begin the next."""
        look, last, sample = self._look(), self._last, self._sample
        sample.end = look.seconds
        sample.settled = look.settled - last.settled
        sample.unsettled = look.unsettled
        sample.fills = dict(look.fills)
        sample.busy = {
            name: max(0.0, seconds - last.busy.get(name, 0.0)) / sample.seconds for name, seconds in look.busy.items()
        }
        for name, law in look.laws.items():
            batcher = sample.batchers.setdefault(name, BatcherSample())
            self._close_batcher(batcher, name, law)
            batcher.triggers = _more(look.triggers.get(name, {}), last.triggers.get(name, {}))
        self._samples.append(sample)
        if len(self._samples) > _SAMPLES:
            self._thin()
        self._last, self._sample = look, Sample(look.seconds)

    def _close_batcher(self, sample: BatcherSample, name: str, law: Mapping[str, float]) -> None:
        batcher = self._batchers[name]
        sample.limit = batcher.summary.last = int(law.get("limit", 0))
        batcher.models.append(_model(batcher.summary, law))
        sample.linger = law.get("linger_seconds", 0.0)
        sample.fixed = batcher.summary.fixed = law.get("model_fixed_seconds", 0.0)
        sample.per_record = batcher.summary.per_record = law.get("model_per_record_seconds", 0.0)
        sample.headroom = batcher.summary.headroom = law.get("record_headroom", law.get("headroom", 0.0))
        batcher.summary.infeasible = law.get("infeasible", 0.0) > 0

    def _thin(self) -> None:
        self._width *= 2
        for earlier, later in zip(self._samples[::2], self._samples[1::2], strict=False):
            earlier.merge(later)
        self._samples = self._samples[::2]

    def _cause(self, change: Resize) -> str:
        """Return the stage whose work for a record has changed most around a change; empty when none stands out."""
        if not change.factor or 1 / _WORTH_A_CAUSE < change.factor < _WORTH_A_CAUSE:
            return ""
        before = [sample for sample in self._samples if sample.end < change.seconds][-_AROUND:]
        after = [sample for sample in self._samples if sample.start > change.seconds][:_AROUND]
        behind = [name for name in self._order[self._order.index(change.batcher) :] if name in self._stages]
        grown = {name: _per_record(after, name) - _per_record(before, name) for name in behind}
        if not before or not after or not grown:
            return ""
        sign = 1 if change.factor > 1 else -1
        most = max(grown, key=lambda name: grown[name] * sign)
        moved = grown[most] * sign
        all_moved = sum(max(0.0, each * sign) for each in grown.values())
        work = max(sum(_per_record(side, name) for name in behind) for side in (before, after))
        return most if moved > max(all_moved, _MUST_MOVE * work) / 2 else ""

    def _summary(self) -> Summary:
        for name, batcher in self._batchers.items():
            _measure(batcher, [sample.batchers[name] for sample in self._samples if name in sample.batchers])
        stages: dict[str, StageTraits] = dict(self._stages)
        return Summary(self._started, [batcher.summary for batcher in self._batchers.values()], stages)


def _model(summary: BatcherSummary, law: Mapping[str, float]) -> _Model:
    return _Model(summary.batches, law.get("model_fixed_seconds", 0.0), law.get("model_per_record_seconds", 0.0))


def _base(batcher: _Batcher, change: Resize) -> _Model | None:
    """Return what the law had learned before the batches that led to a change."""
    known = (each for each in reversed(batcher.models) if each.batches <= change.batches - _UNTAINTED)
    return next((each for each in known if each.predict(change.before) > 0), None)


def _settled_model(samples: list[BatcherSample]) -> _Model | None:
    """Return what the law had learned some batches later; None when there were too few."""
    seen = 0
    for sample in samples:
        seen += sample.batches
        if seen >= _UNTAINTED:
            return _Model(seen, sample.fixed, sample.per_record)
    return None


def _measure(batcher: _Batcher, samples: list[BatcherSample]) -> None:
    """Write into the summary what only all samples together say."""
    sizes, latencies, triggers = Sketch(), Sketch(), dict[str, int]()
    for sample in samples:
        sizes.merge(sample.sizes)
        latencies.merge(sample.latencies)
        for trigger, count in sample.triggers.items():
            triggers[trigger] = triggers.get(trigger, 0) + count
    summary = batcher.summary
    summary.typical = round(sizes.quantile(0.5))
    summary.largest = round(sizes.largest)
    summary.median_latency, summary.p95_latency = latencies.quantile(0.5), latencies.quantile(0.95)
    summary.longest = latencies.largest
    summary.triggers = triggers
    summary.turns = [turn for turn, _ in batcher.turns]
    summary.last_resizes = list(batcher.resizes)[-_TOLD:]


def _climbs(summary: BatcherSummary, change: Resize) -> bool:
    """Follow the climb from the first size; say whether it goes on."""
    rises = change.reason in ("first", "growth", "fit", "bounds") and change.limit > change.before
    if not rises or change.batches - summary.climb_batches > _CLIMB_GAP:
        return False
    summary.climb_limit, summary.climb_batches, summary.climb_seconds = change.limit, change.batches, change.seconds
    return True


def _per_record(samples: list[Sample], stage: str) -> float:
    settled = sum(sample.settled for sample in samples)
    return sum(sample.busy.get(stage, 0.0) * sample.seconds for sample in samples) / max(settled, 1)


def _more(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}


def _is_batcher(spec: object) -> bool:
    return getattr(spec, "role", "") == "batcher"


def _batcher(name: str, spec: object) -> _Batcher:
    settings = settings_of(spec)
    target = settings.get("target_latency")
    whole = settings.get("latency_of") != "batch"
    return _Batcher(BatcherSummary(name=name, settings=settings), float(target) if target is not None else None, whole)


def _kept(batcher: _Batcher) -> list[Resize]:
    turns = [turn for turn, _ in batcher.turns if turn not in batcher.resizes]
    return [*turns, *batcher.resizes]


def _when(change: Resize) -> float:
    return change.seconds
