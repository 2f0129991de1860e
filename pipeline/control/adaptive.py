"""Batches that size themselves against a latency target: an affine model, measured headroom and a change detector.

The law in five sentences. A line is fitted through the last timings (`affine`). How far real batches are above that
line is measured, and its quantile is the headroom: the largest size is chosen whose predicted time, times the
headroom, fits the target less a margin. Sizes at most double what was tried. When the timings leave the line
(`drift`), all that is older is forgotten. A batch lingers for what the same model leaves of the target.

Where each idea comes from:
- choosing the size from a model instead of stepping towards it: Beam's `BatchElements`, Flink's buffer debloating, BBR;
- headroom as a quantile of observed over predicted, which makes a percentile of the target hold for noise of any
  shape: quantile regression as in Clipper (NSDI 2017), freed from its slow convergence by taking the quantile of the
  ratio only;
- at most twice the largest size tried: Beam, Flink; nothing is concluded from batches that the input, not the limit,
  kept small: Netflix's limits;
- never learning from failed attempts: Vector's adaptive concurrency; bounds on both costs: BentoML; "full means
  ready": Kafka's producer;
- forgetting on a cumulative sum alarm: Page (1954); waiting up to a control limit, then going: optimal batching
  policies (Xu et al. 2023);
- closing when hardly anybody is expected: at light load, waiting buys nothing.

Measured in the simulator of `tests.benchmarks` and added to these: the alarm goes by the noise of the last 50 batches
and by more than a pause of all batches in flight can add; noise that grows makes older ratios be forgotten; ratios that
led to the alarm of a large change are not taken for noise.

What it must never see is a queue upstream: smaller batches make a fixed backlog slower to drain, so a law that
shrinks on it never recovers. It sees only the wait in the open batch, which scales with the size, and the time from
dispatch to end.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from pipeline.control.affine import AffineModel
from pipeline.control.drift import MOST, Drift, Widening
from pipeline.control.law import Change, Observation
from pipeline.control.ring import Ring, quantile

__all__ = ("AdaptiveLaw",)

_RING = 200  # ratios that the headroom is taken from
_RECENT = 50  # of these, the last that say how noisy they are now
_ENOUGH = 20  # below that many ratios a quantile says little
_FEW = 5
_PATIENCE = 10  # batches in a row that show the target cannot be met
_GROWTH = 2  # a size may be this many times the largest tried
_BEYOND_NOISE = 2.0  # a change by this factor is not noise, so neither are the ratios that led to its alarm
_GAP_WEIGHT = 0.1
_LONGEST_GAP = 10.0  # in targets: an idle hour must not outweigh the burst that follows it
_RATIO_CAP = 20.0  # one ratio counts as at most this in a mean
_NOTABLE = 0.1  # a limit that has moved by this share since it was last worth a line is worth one again
_SHORTEST = 1e-9  # seconds: clocks can return the same instant twice
_LONGEST = 1e9


class AdaptiveLaw:
    """The largest batches whose latency stays within `target_latency` seconds at `percentile` (50 to 99, or "mean").

    `latency_of` says what is held to the target: "record" (from the admission of a batch's oldest record to its end)
    or "batch" (from dispatch to end). `margin` is the share of the target kept in reserve. Limits start at `min_size`
    and stay within `min_size` and `max_size`; where these are equal the size is fixed. `linger` None waits for what
    the target leaves, a number of seconds caps that, 0 never waits. `max_in_flight` None lets the actor measure.

    :raises ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        target_latency: float,
        latency_of: Literal["record", "batch"] = "record",
        percentile: float | Literal["mean"] = 95,
        margin: float = 0.05,
        min_size: int = 1,
        max_size: int = 10_000,
        max_bytes: int | None = None,
        linger: float | None = None,
        max_in_flight: int | None = None,
    ) -> None:
        _check(target_latency, latency_of, percentile, margin, min_size, max_size, max_bytes, linger, max_in_flight)
        self.limit = min_size
        self.max_bytes = max_bytes
        self.permits = max_in_flight
        self._target = target_latency
        self._budget = target_latency * (1.0 - margin)
        self._of_record = latency_of == "record"
        self._share = None if percentile == "mean" else percentile / 100.0
        self._min, self._max = min_size, max_size
        self._linger = math.inf if linger is None else linger
        self._setting: list[float | str] = [target_latency, latency_of, percentile, margin]
        self._model = AffineModel()
        self._drift = Drift()
        self._widening = Widening()
        self._service_ratios = Ring(_RING)
        self._record_ratios = Ring(_RING)
        self._headroom = self._record_headroom = 1.0
        self._gap: float | None = None
        self._last_arrival: float | None = None
        self._ramping = True
        self._misses = 0
        self._infeasible = False
        self._announced = min_size
        self._permits_seen = 1

    def linger(self, size: int) -> float:
        """Return what is left of the target once a batch of `size` records has its predicted time, headroom included.

        0 before the first observation.
        """
        if not self._model:
            return 0.0
        left = self._budget - self._headroom * self._model.predict(size)
        return max(0.0, min(left, self._linger))

    def predicted(self, size: int) -> float:
        """Return the seconds that a batch of `size` records is expected to take; 0 before the first observation."""
        return self._model.predict(size) if self._model else 0.0

    def limit_between(self, first: float, last: float, permits: int) -> int:
        """Return the limit of a batch that gets its permit in `first` seconds, when the last in flight has `last` left.

        That is `limit`, or down to half of it where this batch would end too long after that last one. Where batches
        end all together, one has waited for a permit as long as it will be served, and the next ones not at all: by
        that one all would be sized, half as large as if each had waited for its part of that time. Batches of rising
        sizes end one after the other, evenly spread, and so do all that follow them.
        """
        limit = max(self.limit, 1)
        if not self._of_record or not self._model:
            return limit
        whole = self._model.predict(limit)
        left = last - first + whole / permits
        # Noise spreads them by itself, and what is told of the ends is no better than it.
        if left >= whole * (1.0 - self._deviation()):
            return limit
        return math.floor(max(self._min, math.ceil(limit / 2), min(limit, self._model.size_for(left))))

    def expects(self, remaining: float) -> bool:
        """Say whether two arrivals, at their mean gap, fit into `remaining` seconds; yes as long as no gap was seen."""
        return self._gap is None or 2.0 * self._gap <= remaining

    def arrived(self, count: int, now: float) -> None:
        """Follow the mean gap between arrivals; records of one instant are one, also when they fill several batches."""
        last = self._last_arrival
        if last is not None and now <= last:
            return
        self._last_arrival = now
        if last is not None:
            gap = min(now - last, _LONGEST_GAP * self._target)
            self._gap = gap if self._gap is None else self._gap + _GAP_WEIGHT * (gap - self._gap)

    def observe(self, seen: Observation) -> list[Change]:
        """Learn from a batch that ended well at its first attempt, choose the next limit, return what changed.

        An observation without a record or with a time that is not a finite number is ignored.
        """
        if seen.size < 1 or not (math.isfinite(seen.service) and math.isfinite(seen.wait)):
            return []
        reason = self._learn(seen)
        self._measure_headroom(max(1, seen.permits))
        changes = self._judge()
        before = self.limit
        bound = self._choose()
        if self.limit != before:
            changes.append(self._change(before, reason or bound))
        return changes

    def retarget(self, target_latency: float) -> None:
        """Go by another target from now on; what was learned of the batches' time stays.

        :raises ValueError: if it is not a positive number of seconds.
        """
        if not 0.0 < target_latency < math.inf:
            raise ValueError(f"target_latency must be more than 0 seconds, not {target_latency}")
        self._target = self._setting[0] = target_latency
        self._budget = target_latency * (1.0 - cast(float, self._setting[3]))
        self._misses = 0
        if self._model:
            self._choose()

    def learned(self) -> dict[str, object]:
        """Return limit, model and ratios: some 4 KB as JSON; nothing before the first observation."""
        if not self._model:
            return {}
        state = _Learned(
            setting=self._setting,
            limit=self.limit,
            permits=self._permits_seen,
            fixed=self._model.fixed,
            per_record=self._model.per_record,
            samples=self._model.samples(),
            service_ratios=[round(ratio, 5) for ratio in self._service_ratios],
            record_ratios=[round(ratio, 5) for ratio in self._record_ratios],
        )
        return cast("dict[str, object]", msgspec.to_builtins(state))

    def restore(self, learned: Mapping[str, object]) -> bool:
        """Go on from `learned`; under another target the limit is chosen anew from the same model.

        Return False, and change nothing, if it is not what `learned` returns.
        """
        try:
            state = msgspec.convert(dict(learned), _Learned)
        except (msgspec.ValidationError, TypeError):
            return False
        self._model.load(state.fixed, state.per_record, state.samples)
        self._service_ratios.load(state.service_ratios)
        self._record_ratios.load(state.record_ratios)
        self._drift.clear()
        self._widening.clear()
        self._ramping = False
        self._measure_headroom(state.permits)
        self.limit = max(self._min, min(state.limit, self._max))
        if state.setting != self._setting:
            self._choose()
        self._announced = self.limit
        return True

    def status(self) -> dict[str, float]:
        """Return what the law goes by.

        The limit, both costs in seconds, the headroom of the service and of a full batch's oldest record, the linger
        of a single record, the mean gap between arrivals, and whether the target is out of reach.
        """
        return {
            "limit": self.limit,
            "model_fixed_seconds": self._model.fixed,
            "model_per_record_seconds": self._model.per_record,
            "headroom": self._headroom,
            "record_headroom": self._record_headroom,
            "linger_seconds": self.linger(1),
            "gap_seconds": self._gap or 0.0,
            "infeasible": float(self._infeasible),
        }

    def _learn(self, seen: Observation) -> str | None:
        """Update the model and the ratios; return the reason if what was known no longer holds."""
        service = min(max(seen.service, _SHORTEST), _LONGEST)
        first = not self._model
        self._model.add(seen.size, service)
        predicted = self._model.predict(seen.size)
        ratio = service / predicted
        alarm = 0 if first else self._drift.push((ratio - 1.0) / self._deviation(), _threshold(seen.permits))
        if alarm:
            moved = self._model.forget(abs(alarm))
            self._widening.clear()
            if not 1.0 / _BEYOND_NOISE < moved < _BEYOND_NOISE:
                for ring in (self._service_ratios, self._record_ratios):
                    ring.drop(abs(alarm) - 1)
        else:
            self._follow_noise(ratio)
            self._service_ratios.push(ratio)
            if self._of_record and seen.full:
                # Of a batch that was held to a part of the limit it is the whole that the limit is for.
                part = 1.0 if seen.share == 1.0 else predicted / self._model.predict(round(seen.size / seen.share))
                self._record_ratios.push(ratio * _stretch(seen, service) * part)
        self._model.fit()
        if alarm:
            return "slower" if alarm > 0 else "faster"
        return "first" if first else None

    def _follow_noise(self, ratio: float) -> None:
        """Forget the ratios from before the noise grew."""
        ratios = self._service_ratios
        if len(ratios) < _ENOUGH:
            return
        if self._widening.push(ratio > ratios.quantile(0.95), ratio < ratios.quantile(0.05)):
            for ring in (ratios, self._record_ratios):
                ring.keep(_RECENT)

    def _deviation(self) -> float:
        """Return the standard deviation of the ratios, from their middle so that outliers do not count."""
        if len(self._service_ratios) < _ENOUGH:
            return 0.25
        recent = self._service_ratios.last(_RECENT)
        return max(0.05, (quantile(recent, 0.84) - quantile(recent, 0.16)) / 2.0)

    def _measure_headroom(self, permits: int) -> None:
        self._permits_seen = permits
        self._headroom = max(1.0, self._statistic(self._service_ratios))
        if not self._of_record:
            self._record_headroom = self._headroom
        elif self._record_ratios:
            self._record_headroom = max(self._headroom, self._statistic(self._record_ratios))
        else:
            # A batch fills while the ones before it are served: with one permit it waits for a whole service.
            self._record_headroom = self._headroom * (1.0 + 1.0 / permits)

    def _statistic(self, ring: Ring) -> float:
        """Return the statistic of a ring that the target is about, on the safe side while the ring holds little."""
        count = len(ring)
        if count < _ENOUGH:
            floor = 1.1 if self._share is None else 1.25 if count < _FEW else 1.15
            return max(floor, min(ring.largest(), _RATIO_CAP) if count else 1.0)
        return ring.mean(_RATIO_CAP) if self._share is None else ring.quantile(self._share)

    def _judge(self) -> list[Change]:
        """Count batches that show the target to be out of reach of the smallest size; say when that begins or ends."""
        headroom = self._record_headroom if len(self._service_ratios) >= _ENOUGH else 1.0
        if headroom * self._model.predict(self._min) <= self._budget:
            self._misses = 0
            return self._turn(False, "feasible")
        self._misses += 1
        return self._turn(True, "infeasible") if self._misses >= _PATIENCE else []

    def _turn(self, infeasible: bool, reason: str) -> list[Change]:
        if self._infeasible == infeasible:
            return []
        self._infeasible = infeasible
        return [Change(self.limit, self.limit, reason)]

    def _choose(self) -> str:
        """Set the limit to the largest size that fits; return what it was held by."""
        want = self._model.size_for(self._budget / self._record_headroom)
        cap = _GROWTH * self._model.largest()
        reason = "fit"
        if want > cap:
            # Beyond what was tried nothing is known, but a limit once reached is not given up for lack of records.
            want = max(min(want, self.limit), cap)
            reason = "growth"
        elif self._ramping:
            # Ratios of the climb were taken against a model that was still guessing.
            self._ramping = False
            self._service_ratios.clear()
            self._record_ratios.clear()
        if not self._min <= want <= self._max:
            want = max(self._min, min(want, self._max))
            reason = "bounds"
        self.limit = math.floor(want)
        return reason

    def _change(self, before: int, reason: str) -> Change:
        """Describe a new limit; small corrections add up until they are notable."""
        moved = abs(self.limit - self._announced) > _NOTABLE * self._announced
        notable = moved or reason in ("first", "slower", "faster")
        if notable:
            self._announced = self.limit
        return Change(before, self.limit, reason, notable)


def _threshold(permits: int) -> float:
    """Return what a drift must sum up to: more than one pause can add that holds up all batches in flight."""
    return max(5.0, MOST * permits + 0.5)


def _stretch(seen: Observation, service: float) -> float:
    """Return the latency of a full batch's oldest record over the time in service: what waiting for a permit adds."""
    stretch = (min(max(seen.wait, 0.0), _LONGEST) + service) / service
    # A batch that found a permit waited only for records, and that wait its linger bounds, not its size.
    return stretch if seen.queued else min(stretch, 1.0 + 1.0 / max(1, seen.permits))


def _check(
    target_latency: float,
    latency_of: str,
    percentile: float | str,
    margin: float,
    min_size: int,
    max_size: int,
    max_bytes: int | None,
    linger: float | None,
    max_in_flight: int | None,
) -> None:
    if not 0.0 < target_latency < math.inf:
        raise ValueError(f"target_latency must be more than 0 seconds, not {target_latency}")
    if latency_of not in ("record", "batch"):
        raise ValueError(f"latency_of must be 'record' or 'batch', not {latency_of!r}")
    if percentile != "mean" and (isinstance(percentile, str) or not 50 <= percentile <= 99):
        raise ValueError(f"percentile must be 50 to 99 or 'mean', not {percentile!r}")
    if not 0.0 <= margin < 1.0:
        raise ValueError(f"margin must be a share of the target, 0 to below 1, not {margin}")
    if not 1 <= min_size <= max_size:
        raise ValueError(f"sizes must be 1 <= min_size <= max_size, not {min_size} and {max_size}")
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
    if linger is not None and not linger >= 0.0:
        raise ValueError(f"linger must not be negative, it is {linger}")
    if max_in_flight is not None and max_in_flight < 1:
        raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")


_Time = Annotated[float, Meta(ge=_SHORTEST, le=_LONGEST)]
_Cost = Annotated[float, Meta(ge=0.0, le=_LONGEST)]
_Count = Annotated[int, Meta(ge=1, le=2**53)]
_Ratios = Annotated[list[Annotated[float, Meta(ge=0.0, le=1e300)]], Meta(max_length=_RING)]


class _Learned(msgspec.Struct, forbid_unknown_fields=True):
    """What a checkpoint keeps; the bounds are those of `observe`, so that nothing else gets in here either."""

    setting: list[float | str]
    limit: _Count
    permits: _Count
    fixed: _Cost
    per_record: Annotated[float, Meta(gt=0.0, le=_LONGEST)]
    samples: Annotated[list[tuple[_Count, _Time]], Meta(min_length=1)]
    service_ratios: _Ratios
    record_ratios: _Ratios
