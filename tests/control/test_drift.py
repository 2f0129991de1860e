"""The change detector."""

from pipeline.control.drift import Drift, Widening


def test_one_outlier_however_large_is_no_change() -> None:
    assert Drift().push(1e12, 5.0) == 0


def test_says_of_how_many_values_a_rise_is_made() -> None:
    drift = Drift()
    assert [drift.push(deviation, 5.0) for deviation in (0.1, -0.2, 3.0, 3.0, 3.0)] == [0, 0, 0, 0, 3]


def test_a_fall_is_negative() -> None:
    drift = Drift()
    assert [drift.push(-2.0, 3.0) for _ in range(3)] == [0, 0, -3]


def test_an_alarm_starts_anew() -> None:
    drift = Drift()
    assert [drift.push(3.0, 5.0) for _ in range(6)] == [0, 0, 3, 0, 0, 3]


def test_values_beyond_one_end_are_no_wider_noise() -> None:
    widening = Widening()
    assert not any(widening.push(above=True, below=False) for _ in range(100))


def test_values_beyond_both_ends_are() -> None:
    widening = Widening()
    alarms = [widening.push(above=index % 2 == 0, below=index % 2 == 1) for index in range(6)]
    assert alarms == [False, False, False, False, False, True]


def test_one_in_ten_beyond_an_end_is_usual() -> None:
    widening = Widening()
    assert not any(widening.push(above=index % 20 == 0, below=index % 20 == 10) for index in range(1000))
