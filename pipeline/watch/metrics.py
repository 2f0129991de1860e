"""Plain counters of a run: written by the actors without a lock or a call, read by whoever shows them."""

from bisect import bisect_left

from msgspec import Struct, field

from pipeline.watch.sketch import Sketch

__all__ = ("RECORDS_BUCKETS", "SECONDS_BUCKETS", "BatcherMetrics", "Histogram", "StageMetrics")

RECORDS_BUCKETS = (1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Counts in fixed buckets, so that those of several processes can be added up."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    @property
    def mean(self) -> float:
        """The mean of all values, 0 before the first."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket in which this share of the values is reached; 0 before the first."""
        wanted = share * self.count
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen and seen >= wanted:
                return bound
        return 0.0


class BatcherMetrics:
    """What became of the batches that a batcher cut. ``target`` are the seconds that it aims at, None without one.

    ``whole`` says that the target holds from the admission of a batch's oldest record, not from dispatch.
    """

    __slots__ = ("latencies", "over", "record_seconds", "resizes", "sizes", "slot_wait", "target", "through", "uneven")

    def __init__(self, target: float | None = None, whole: bool = True) -> None:
        self.target = (target, whole)
        self.sizes = Histogram(RECORDS_BUCKETS)
        self.record_seconds = Histogram()
        """Seconds from the admission of a batch's oldest record until the batch was through the sinks."""
        self.latencies = Sketch()
        """The same, for percentiles to two percent."""
        self.slot_wait = Histogram()
        """Seconds that a batch waited for a permit after it was ready."""
        self.over = 0
        """Batches over the target."""
        self.through = 0
        self.uneven = 0
        """Batches that were tried again or held up, from whose time nothing is learned."""
        self.resizes: dict[str, int] = {}
        """Changes of the limit, by reason."""

    def done(self, service: float, waited: float, smooth: bool) -> None:
        """Count a batch that is through: seconds since its dispatch, and of its oldest record before that."""
        target, whole = self.target
        self.record_seconds.observe(service + waited)
        self.latencies.add(service + waited)
        self.through += 1
        self.uneven += not smooth
        self.over += target is not None and (service + waited if whole else service) > target

    def resized(self, reason: str) -> None:
        """Count a change of the limit."""
        self.resizes[reason] = self.resizes.get(reason, 0) + 1


class StageMetrics(Struct):
    """What one stage has done since the run began. Seconds are wall seconds of its actor."""

    name: str
    role: str
    kind: str
    concurrency: int = 1
    records_in: int = 0
    records_out: int = 0
    filtered: int = 0
    batches: int = 0
    attempts: int = 0
    retries: int = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    """Records that failed, by what became of them: stop, dead_letter, collect, skip."""
    already_held: int = 0
    """Records that a sink found it held already, on resume."""
    busy_seconds: float = 0.0
    waiting_in_seconds: float = 0.0
    waiting_out_seconds: float = 0.0
    batch_seconds: Histogram = field(default_factory=Histogram)
    """Seconds a batch took in the stage: attempts and what lay between them."""
    recent_seconds: float = 0.0
    """Moving average of the same, for smooth batches; what permits are counted from."""
    triggers: dict[str, int] = field(default_factory=dict[str, int])
    """For a batcher: why batches were cut."""
    limit: int = 0
    in_flight: int = 0
    last_batch: int = 0
    state: str = "starting"
    batcher: BatcherMetrics | None = None
    """For a batcher: what became of its batches."""
    breaker: str = ""
    """State of its circuit breaker: closed, open, half_open; empty when it has none."""
    breaker_opened: int = 0
    held_seconds: float = 0.0
    """Seconds that batches were held by the open breaker, added up."""
    throttled_seconds: float = 0.0
    """Seconds that calls waited for the rate limit, added up."""
    _smooth: int = 0

    def took(self, seconds: float, smooth: bool = True) -> None:
        """Count a batch that took so long; ``smooth`` unless an attempt failed or it was held up."""
        self.batches += 1
        self.batch_seconds.observe(seconds)
        if smooth:
            count = self._smooth = self._smooth + 1
            self.recent_seconds += (seconds - self.recent_seconds) * (0.1 if count > 10 else 1 / count)

    def fail(self, policy: str) -> None:
        """Count a record that failed."""
        self.failed[policy] = self.failed.get(policy, 0) + 1
