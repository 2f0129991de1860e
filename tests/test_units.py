"""Quantities as people write them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.units import format_duration, format_size, parse_backoff, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("10us", 1e-5), ("3 s", 3), ("0s", 0)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 seconds", "-1s", "1e3s", "1s ", "1,5s", "5S", "1s2m", "nan s"])
def test_anything_else_is_no_duration_and_the_error_shows_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"like 250ms or 1\.5s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("64KiB", 65536), ("1MB", 10**6), ("16MiB", 2**24), ("2GB", 2 * 10**9), ("7B", 7)],
)
def test_sizes_have_units(text: str, count: int) -> None:
    assert parse_size(text) == count and isinstance(parse_size(text), int)


@pytest.mark.parametrize("text", ["64", "64K", "64kib", "KiB", "-1B", ""])
def test_anything_else_is_no_size_and_the_error_shows_one(text: str) -> None:
    with pytest.raises(ValueError, match="like 64KiB"):
        parse_size(text)


def test_rates_are_by_second_minute_or_hour() -> None:
    assert [parse_rate(text) for text in ("100/s", "6000/m", "3600/h", "0.5/s")] == [100, 100, 1, 0.5]


@pytest.mark.parametrize("text", ["100", "100/d", "/s", "0/s", "-1/s", "100 /s"])
def test_anything_else_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="like 100/s"):
        parse_rate(text)


def test_a_backoff_is_two_durations_or_one() -> None:
    assert parse_backoff("100ms..10s") == (0.1, 10)
    assert parse_backoff("1s") == (1, 1)
    with pytest.raises(ValueError, match=r"expected the shorter wait first, as in 1s\.\.10s"):
        parse_backoff("10s..1s")
    with pytest.raises(ValueError, match="a duration with a unit"):
        parse_backoff("1s..")


@given(some.floats(1e-6, 1e7))
def test_a_formatted_duration_reads_back_as_about_the_same(seconds: float) -> None:
    text = format_duration(seconds)
    if "e" in text:
        assert seconds >= 1e4  # too long for four digits; nobody writes it
        return
    assert math.isclose(parse_duration(text), seconds, rel_tol=1e-3)


def test_durations_and_sizes_are_shown_in_the_unit_that_suits() -> None:
    assert [format_duration(s) for s in (0, 0.2, 1.5, 60, 120, 1e-5)] == ["0s", "200ms", "1.5s", "60s", "2m", "10us"]
    assert [format_size(n) for n in (0, 1023, 1536, 2**24, 3 * 2**30)] == ["0B", "1023B", "1.5KiB", "16MiB", "3GiB"]
