"""The counters of a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.watch.metrics import SECONDS_BUCKETS, Histogram, StageMetrics


@given(some.lists(some.floats(0, 100), min_size=1), some.floats(0.01, 1))
def test_a_quantile_is_the_upper_bound_of_the_bucket_that_reaches_its_share(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values) == sum(histogram.counts)
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    bounds = [*SECONDS_BUCKETS, float("inf")]
    reached = [bound for bound in bounds if sum(value <= bound for value in values) >= share * len(values)]
    assert histogram.quantile(share) == reached[0]


def test_an_empty_histogram_is_zero() -> None:
    assert (Histogram().mean, Histogram().quantile(0.95)) == (0, 0)


def test_a_value_on_a_bound_counts_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]


def test_a_stage_remembers_recent_times_at_first_evenly_and_then_the_newer_ones() -> None:
    metrics = StageMetrics("s", "sink", "x")
    for seconds in (1.0, 3.0):
        metrics.took(seconds)
    assert metrics.batches == 2
    assert metrics.recent_seconds == pytest.approx(2.0)
    for _ in range(100):
        metrics.took(10.0)
    assert 9 < metrics.recent_seconds <= 10
    metrics.fail("skip")
    metrics.fail("skip")
    assert metrics.failed == {"skip": 2}
