"""The law of fixed batches."""

import math

import pytest

from pipeline.control.fixed import FixedLaw
from pipeline.control.law import Law, Observation


def test_size_and_linger_stay_whatever_is_observed() -> None:
    law: Law = FixedLaw(500, linger=2.0, max_bytes=4096)
    assert law.observe(Observation(500, 1e6)) == []
    assert (law.limit, law.max_bytes, law.permits) == (500, 4096, None)
    assert law.linger(1) == law.linger(500) == 2.0


def test_lingers_for_a_second_when_nothing_is_said() -> None:
    assert FixedLaw(10).linger(3) == 1.0


def test_may_wait_for_ever_or_not_at_all() -> None:
    assert FixedLaw(10, linger=math.inf).linger(1) == math.inf
    assert FixedLaw(10, linger=0.0).linger(1) == 0.0


def test_always_expects_another_record() -> None:
    law = FixedLaw(10)
    law.arrived(1, 0.0)
    law.arrived(1, 1000.0)
    assert law.expects(0.001)


def test_has_nothing_to_remember() -> None:
    law = FixedLaw(10)
    assert law.learned() == {}
    assert not law.restore({"limit": 20})
    assert law.status() == {"limit": 10}


@pytest.mark.parametrize(
    ("size", "linger", "max_bytes"), [(0, 1.0, None), (1, -1.0, None), (1, math.nan, None), (1, 1.0, 0)]
)
def test_refuses_numbers_out_of_range(size: int, linger: float, max_bytes: int | None) -> None:
    with pytest.raises(ValueError, match="must"):
        FixedLaw(size, linger, max_bytes)
