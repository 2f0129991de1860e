"""The circuit breaker: when it opens, that one call at a time is tried, and what closes it."""

from hypothesis import given
from hypothesis import strategies as some

from pipeline.control.breaker import Breaker


def test_so_many_failures_in_a_row_open_it_and_a_success_between_starts_the_count_anew() -> None:
    breaker = Breaker(3, 10.0)
    assert [breaker.failed(0.0) for _ in range(2)] == [False, False]
    assert breaker.at_the_brink
    assert not breaker.succeeded()
    assert [breaker.failed(1.0) for _ in range(3)] == [False, False, True]
    assert breaker.state == "open"
    assert not breaker.admit(1.0)
    assert breaker.wait(4.0) == 7.0


def test_after_the_reset_one_call_is_the_probe_and_no_other_is_made_meanwhile() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.admit(10.0) and breaker.state == "half_open"
    assert not breaker.admit(10.0)
    assert breaker.wait(10.0) is None


def test_a_probe_that_fails_opens_it_for_as_long_again_and_one_that_succeeds_closes_it() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.admit(10.0)
    assert breaker.failed(12.0, probe=True)
    assert breaker.wait(12.0) == 10.0
    assert breaker.admit(22.0)
    assert breaker.succeeded()
    assert breaker.state == "closed" and breaker.admit(22.0)


def test_a_call_that_was_under_way_closes_it_by_success_and_says_nothing_by_failing() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert not breaker.failed(5.0)
    assert breaker.wait(5.0) == 5.0
    assert breaker.succeeded()
    assert breaker.wait(5.0) == 0


def test_a_probe_that_says_nothing_lets_the_next_call_be_the_probe() -> None:
    breaker = Breaker(1, 10.0)
    breaker.failed(0.0)
    assert breaker.admit(10.0)
    breaker.release()
    assert breaker.admit(10.0)


def test_it_opens_without_a_count_when_nothing_gets_through() -> None:
    breaker = Breaker(5, 10.0)
    assert breaker.trip(3.0)
    assert not breaker.trip(4.0)
    assert breaker.wait(4.0) == 9.0


@given(some.integers(1, 5), some.lists(some.tuples(some.floats(0, 20), some.booleans()), max_size=60))
def test_while_it_is_open_calls_are_at_least_a_reset_apart(failures: int, calls: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(failures, 10.0), 0.0
    opened: float | None = None
    for gap, works in calls:
        now += gap
        was_open = breaker.state != "closed"
        if not breaker.admit(now):
            assert was_open and opened is not None and now < opened + 10.0
            continue
        assert not was_open or (opened is not None and now >= opened + 10.0)
        if works:
            breaker.succeeded()
        elif breaker.failed(now, probe=was_open):
            opened = now
