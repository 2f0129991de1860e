"""The rate limit: what any stretch of time holds at most, and that nobody waits longer than the rate asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.control.limiter import Limiter

GAPS = some.lists(some.floats(0, 5), min_size=1, max_size=60)


def begun(rate: float, burst: int, gaps: list[float]) -> tuple[list[float], list[float]]:
    """Return when calls were asked for, and when they began."""
    limiter, now = Limiter(rate, burst, 0.0), 0.0
    asked: list[float] = []
    for gap in gaps:
        now += gap
        asked.append(now)
    return asked, [at + limiter.take(at) for at in asked]


@given(some.floats(0.1, 100), some.integers(1, 10), GAPS)
def test_no_stretch_of_time_holds_more_calls_than_burst_and_rate_allow(
    rate: float, burst: int, gaps: list[float]
) -> None:
    _, begins = begun(rate, burst, gaps)
    assert begins == sorted(begins)
    for first, low in enumerate(begins):
        for last, high in enumerate(begins[first:], first):
            assert last - first + 1 <= burst + rate * (high - low) + 1e-6


@given(some.floats(0.1, 100), some.integers(1, 10), GAPS)
def test_a_call_waits_no_longer_than_those_before_it_make_it(rate: float, burst: int, gaps: list[float]) -> None:
    asked, begins = begun(rate, burst, gaps)
    for index, (at, begin) in enumerate(zip(asked, begins, strict=True)):
        if begin > at:
            # Whoever waits does so because the bucket is empty: the calls before it used it up at the full rate.
            earlier = max(index - burst, 0)
            assert begin <= max(at, begins[earlier]) + burst / rate + 1e-6


def test_a_burst_goes_at_once_and_then_one_at_a_time() -> None:
    limiter = Limiter(10.0, 3, 0.0)
    assert [limiter.take(0.0) for _ in range(5)] == [0, 0, 0, pytest.approx(0.1), pytest.approx(0.2)]
    assert limiter.take(60.0) == 0


def test_a_token_that_was_not_used_serves_the_next() -> None:
    limiter = Limiter(1.0, 1, 0.0)
    assert limiter.take(0.0) == 0
    limiter.give_back()
    assert limiter.take(0.0) == 0
    assert limiter.take(0.0) == 1
