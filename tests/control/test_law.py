"""How many batches in flight keep a path busy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.law import permits_for

STAGES = st.lists(st.tuples(st.floats(0.0, 1e3), st.integers(1, 50)), max_size=6)


@pytest.mark.parametrize(
    ("path", "permits"),
    [
        ([(0.1, 1)], 1),
        ([(0.1, 4)], 4),
        ([(0.1, 1), (0.1, 1)], 2),
        ([(0.02, 1), (0.1, 1)], 2),
        ([(0.009, 1), (0.1, 1)], 1),
        ([(0.04, 2), (0.1, 4)], 6),
        ([], 1),
        ([(0.0, 3)], 1),
    ],
)
def test_keeps_the_slowest_stage_busy_and_no_more(path: list[tuple[float, int]], permits: int) -> None:
    assert permits_for(path) == permits


@given(STAGES)
def test_is_at_least_one_and_at_most_all_places(path: list[tuple[float, int]]) -> None:
    assert 1 <= permits_for(path) <= max(1, sum(concurrency for _, concurrency in path))
