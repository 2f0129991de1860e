from pipeline.sizes import estimate


def test_a_small_first_record_does_not_speak_for_large_ones() -> None:
    records = [{"text": "x"}, *({"text": "x" * 10_000} for _ in range(499))]

    assert 0.8 * 5_000_000 <= estimate(records) <= 1.2 * 5_000_000


def test_records_that_are_alike_count_their_number_of_times() -> None:
    one = estimate(["x" * 1000])

    assert one > 1000
    assert estimate(["x" * 1000] * 500) == 500 * one
    assert estimate([]) == 0
