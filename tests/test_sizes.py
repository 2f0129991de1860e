from pipeline.sizes import Gauge, estimate


def test_a_small_first_record_does_not_speak_for_large_ones() -> None:
    records = [{"text": "x"}, *({"text": "x" * 10_000} for _ in range(499))]

    assert 0.8 * 5_000_000 <= estimate(records) <= 1.2 * 5_000_000


def test_records_that_are_alike_count_their_number_of_times() -> None:
    one = estimate(["x" * 1000])

    assert one > 1000
    assert estimate(["x" * 1000] * 500) == 500 * one
    assert estimate([]) == 0


def test_of_lists_that_are_alike_a_gauge_looks_into_some() -> None:
    gauge = Gauge()
    small, large = ["x" * 10] * 100, ["x" * 1000] * 100
    first = gauge.size(small)

    assert first == estimate(small)
    assert gauge.size(small[:50]) == first // 2
    # The records grew: it notices, a few lists later.
    assert estimate(large) in [gauge.size(large) for _ in range(4)]


def test_a_gauge_looks_into_every_short_list() -> None:
    gauge = Gauge()

    assert gauge.size([]) == 0
    assert [gauge.size(["x" * n]) for n in (10, 1000, 10)] == [estimate(["x" * n]) for n in (10, 1000, 10)]
