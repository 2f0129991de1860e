"""The last minutes of a run, from its counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.watch.window import Counted, Window


def at(seconds: float, ended: int = 0, failed: int = 0, batches: int = 0, batched: int = 0) -> Counted:
    return Counted(seconds, ended, ended, failed, batches, batched)


def test_rate_error_rate_and_average_batch_are_of_the_last_seconds_only() -> None:
    window = Window()
    for second in range(1, 121):
        window.add(
            at(second, ended=1000 * min(second, 60) + 10 * max(second - 60, 0), batches=second, batched=20 * second)
        )
    lately = window.lately(at(120, 60_600, 30, 120, 2400), 60)
    assert (lately.seconds, lately.ended, lately.rate) == (60, 600, 10)
    assert lately.error_rate == pytest.approx(30 / 600)  # pyright: ignore[reportUnknownMemberType]
    assert lately.average_batch == 20
    assert window.lately(at(120, 60_600), 3600).rate == 505


def test_a_young_run_is_looked_at_from_its_beginning() -> None:
    lately = Window().lately(at(0.5, 100), 60)
    assert (lately.seconds, lately.rate, lately.error_rate, lately.average_batch) == (0.5, 200, 0, 0)
    assert Window().lately(at(0), 60).rate == 0


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=300), st.floats(1, 600))
def test_it_looks_back_as_far_as_asked_within_a_step_and_forgets_the_rest(steps: list[float], back: float) -> None:
    window = Window(longest=600, step=1)
    now = 0.0
    for step in steps:
        now += step
        window.add(at(now, round(now * 1000)))
    lately = window.lately(at(now, round(now * 1000)), back)
    # The next counters kept come within a step behind the last ones that were old enough, or one gap later.
    assert lately.seconds <= max(back + 1 + max(steps), 0) + 1e-6
    assert lately.seconds >= min(back, now) - 1e-6
    assert lately.ended == pytest.approx(lately.seconds * 1000, abs=1.01)  # pyright: ignore[reportUnknownMemberType]
