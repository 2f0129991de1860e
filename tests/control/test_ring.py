"""The last so many values."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.ring import Ring, quantile

VALUES = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60)


@given(VALUES, st.integers(1, 20))
def test_keeps_the_last_values_in_order_of_arrival_and_of_size(values: list[float], length: int) -> None:
    ring = Ring(length)
    for value in values:
        ring.push(value)
    assert list(ring) == values[-length:]
    assert ring.largest() == max(values[-length:])
    assert ring.last(3) == sorted(values[-length:][-3:])
    assert ring.quantile(1.0) == ring.largest()


@given(VALUES, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_quantiles_grow_with_the_share_and_stay_between_the_extremes(
    values: list[float], one: float, other: float
) -> None:
    ordered = sorted(values)
    low, high = sorted((one, other))
    assert ordered[0] <= quantile(ordered, low) <= quantile(ordered, high) <= ordered[-1]


def test_a_quantile_lies_between_two_values_where_need_be() -> None:
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.5) == 1.5


def test_a_mean_caps_what_one_value_counts() -> None:
    ring = Ring(3)
    ring.load([1.0, 1.0, 1e9])
    assert ring.mean(cap=4.0) == 2.0
