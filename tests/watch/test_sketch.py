from hypothesis import given
from hypothesis import strategies as st

from pipeline.watch.sketch import Sketch

NUMBERS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200)


def sketch_of(values: list[float]) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(NUMBERS, st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_a_quantile_is_within_two_percent_of_the_true_one(values: list[float], share: float) -> None:
    rank = next(rank for rank in range(1, len(values) + 1) if rank >= share * len(values))
    true = sorted(values)[rank - 1]

    assert abs(sketch_of(values).quantile(share) - true) <= 0.02 * true


@given(NUMBERS, NUMBERS)
def test_sketches_of_parts_add_up_to_that_of_the_whole(one: list[float], other: list[float]) -> None:
    merged = sketch_of(one)
    merged.merge(sketch_of(other))

    whole = sketch_of(one + other)
    assert (merged.counts, merged.count, merged.largest) == (whole.counts, whole.count, whole.largest)


def test_nothing_counted_gives_zero_and_zero_can_be_counted() -> None:
    assert Sketch().quantile(0.5) == 0.0
    assert sketch_of([0.0, 0.0]).quantile(0.5) == 0.0
