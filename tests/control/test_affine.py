"""The model of what a batch costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.control.affine import AffineModel

SAMPLES = st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-9, 1e9)), min_size=1, max_size=80)


def learn(samples: list[tuple[int, float]]) -> AffineModel:
    model = AffineModel()
    for size, seconds in samples:
        model.add(size, seconds)
        model.fit()
    return model


def test_knows_nothing_before_the_first_sample() -> None:
    assert not AffineModel()


def test_takes_the_first_batch_for_nearly_all_fixed_cost() -> None:
    model = learn([(1, 0.1)])
    assert model.predict(1) == pytest.approx(0.1)
    assert model.predict(10) < 0.11


def test_finds_both_costs_of_batches_without_noise() -> None:
    model = learn([(2**power, 0.01 + 0.0001 * 2**power) for power in range(10)])
    assert model.fixed == pytest.approx(0.01)
    assert model.per_record == pytest.approx(0.0001)
    assert model.size_for(0.06) == pytest.approx(500)


def test_scales_both_costs_where_the_sizes_do_not_tell_them_apart() -> None:
    model = AffineModel()
    model.load(0.01, 0.0001, [(500, 0.12)] * 5)
    model.fit()
    assert model.fixed == pytest.approx(0.02)
    assert model.per_record == pytest.approx(0.0002)


def test_three_batches_of_nearly_one_size_do_not_make_a_slope() -> None:
    model = learn([(2**power, 0.01 + 0.0001 * 2**power) for power in range(10)])
    for size, seconds in ((706, 0.2218), (688, 0.2206), (680, 0.2200)):
        model.add(size, seconds)
    model.forget(3)
    model.fit()
    assert model.fixed < 0.05


def test_outliers_do_not_move_the_line() -> None:
    samples = [(100 + 20 * index, 0.01 + 0.0001 * (100 + 20 * index)) for index in range(30)]
    samples[20] = (samples[20][0], 5.0)
    assert learn(samples).predict(500) == pytest.approx(0.06, rel=0.01)


def test_an_outlier_among_few_samples_does_not_count() -> None:
    model = AffineModel()
    model.load(0.01, 0.0001, [(500, 0.06), (505, 0.0605), (500, 1e6), (495, 0.0595)])
    model.fit()
    assert model.predict(500) == pytest.approx(0.06, rel=0.01)


def test_forgets_all_but_the_last_samples_and_follows_those() -> None:
    model = learn([(2**power, 0.01 + 0.0001 * 2**power) for power in range(10)])
    for _ in range(3):
        model.add(512, 3 * model.predict(512))
    model.forget(3)
    assert [size for size, _ in model.samples()] == [512] * 3
    assert model.predict(512) == pytest.approx(0.1836)


@given(SAMPLES)
def test_costs_stay_finite_and_never_negative(samples: list[tuple[int, float]]) -> None:
    model = learn(samples)
    assert 0.0 <= model.fixed <= 1e12
    assert 0.0 < model.per_record <= 1e12
    assert model.largest() == max(size for size, _ in samples[-32:])
