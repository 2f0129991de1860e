import pytest

from pipeline.errors import ConfigError
from stages.batchers import Fixed


def test_its_law_keeps_the_keys() -> None:
    law = Fixed(size=7, linger="250ms", max_bytes="1KiB").law()

    assert (law.limit, law.linger(3), law.max_bytes) == (7, 0.25, 1024)


def test_it_has_500_records_and_waits_a_second_when_told_nothing() -> None:
    law = Fixed().law()

    assert (law.limit, law.linger(1), law.max_bytes) == (500, 1.0, None)


def test_each_run_gets_a_law_of_its_own() -> None:
    batcher = Fixed()

    assert batcher.law() is not batcher.law()


def test_quantities_out_of_range_are_problems_and_other_texts_an_error() -> None:
    assert [name for name, _ in Fixed(linger=-1.0, max_bytes=0).problems()] == ["linger", "max_bytes"]
    assert not list(Fixed(linger=0.0, max_bytes=1).problems())
    with pytest.raises(ConfigError, match="linger='soon'"):
        Fixed(linger="soon")
