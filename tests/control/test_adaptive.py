"""The twelve invariants of the adaptive law, and what it promises in plain sentences."""

import json
import math
from itertools import pairwise
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pipeline.control.adaptive import AdaptiveLaw
from pipeline.control.law import Change, Law, Observation
from tests.benchmarks.simulator import Cost, Run, Station, Trace, poisson, quantile, saturated, simulate

settings.register_profile("unhurried", deadline=None)  # other people's machines are busy, too
settings.load_profile("unhurried")

Scope = Literal["record", "batch"]

OBSERVATIONS = st.lists(
    st.builds(
        Observation,
        size=st.integers(1, 20_000),
        service=st.one_of(st.floats(0.001, 1.0), st.floats(1e-9, 1e9), st.sampled_from([0.0, 1e-9, 1e9])),
        wait=st.one_of(st.just(0.0), st.floats(0.0, 1e9)),
        full=st.booleans(),
        permits=st.integers(1, 64),
        queued=st.booleans(),
        share=st.sampled_from([1.0, 0.75, 0.5]),
    ),
    max_size=60,
)
LAWS = st.builds(
    AdaptiveLaw,
    target_latency=st.sampled_from([0.001, 0.1, 1.0, 60.0]),
    latency_of=st.sampled_from(["record", "batch"]),
    percentile=st.sampled_from([50.0, 95.0, 99.0, "mean"]),
    margin=st.sampled_from([0.0, 0.05, 0.3]),
    min_size=st.integers(1, 50),
    max_size=st.integers(50, 20_000),
    linger=st.one_of(st.none(), st.floats(0.0, 1.0)),
)


def affine(size: int, fixed: float = 0.01, per_record: float = 0.0001) -> float:
    return fixed + per_record * size


def feed(law: Law, batches: int, cost: Cost | None = None, seed: int = 1) -> list[int]:
    """Observe full batches of the limit, without a wait; return the limits."""
    random, limits = Random(seed), list[int]()
    cost = cost or Cost()
    for _ in range(batches):
        noise = math.exp(random.gauss(0.0, cost.deviation) - cost.deviation**2 / 2)
        law.observe(Observation(law.limit, affine(law.limit, cost.fixed, cost.per_record) * noise))
        limits.append(law.limit)
    return limits


def one_station(
    law: Law, cost: Cost, seconds: float = 20.0, concurrency: int = 1, rate: float | None = None, keys: int = 1
) -> Trace:
    arrivals = saturated() if rate is None else poisson(lambda now: rate, 1, seconds, keys)
    return simulate(law, ((Station(cost, concurrency),),), arrivals, seconds, 1, concurrency)


# --- the invariants ---------------------------------------------------------------------------------------------------


@given(LAWS, OBSERVATIONS)
def test_1_limits_stay_in_bounds_and_all_figures_finite(law: AdaptiveLaw, seen: list[Observation]) -> None:
    low = law.limit
    for observation in seen:
        law.observe(observation)
        status = law.status()
        assert isinstance(law.limit, int)
        assert low <= law.limit <= 20_000
        assert all(math.isfinite(figure) for figure in status.values())
        assert status["model_fixed_seconds"] >= 0.0
        assert status["model_per_record_seconds"] > 0.0
        assert 1.0 <= status["headroom"] <= status["record_headroom"]


@given(LAWS, OBSERVATIONS)
def test_2_a_limit_at_most_doubles_what_was_tried(law: AdaptiveLaw, seen: list[Observation]) -> None:
    for index, observation in enumerate(seen):
        before = law.limit
        law.observe(observation)
        assert law.limit <= max(2 * max(past.size for past in seen[max(0, index - 31) : index + 1]), before)


@pytest.mark.parametrize("service", [math.nan, math.inf, -math.inf])
def test_2_a_time_that_is_no_number_is_not_learned_from(service: float) -> None:
    law = AdaptiveLaw(0.1)
    feed(law, 30)
    before = law.learned()
    assert law.observe(Observation(100, service)) == law.observe(Observation(0, 0.1)) == []
    assert law.learned() == before


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 3), st.floats(100.0, 20_000.0), st.integers(0, 100))
def test_3_every_record_is_dispatched_once_in_order(concurrency: int, keys: int, rate: float, seed: int) -> None:
    admitted: list[tuple[float, int, str]] = list(poisson(lambda now: rate, seed, 2.0, keys))
    path = ((Station(Cost(deviation=0.3), concurrency),),)
    trace = Run(AdaptiveLaw(0.1), path, iter(admitted), 60.0, seed, concurrency).run()
    assert sum(batch.size for batch in trace.done) == sum(count for _, count, _ in admitted)
    assert all(batch.size == sum(count for _, count, _ in batch.parts) <= batch.limit for batch in trace.done)
    assert trace.most_in_flight <= concurrency
    if keys == 1:
        dispatched = sorted(trace.done, key=lambda batch: batch.started)
        arrivals = [arrived for batch in dispatched for _, _, arrived in batch.parts]
        assert arrivals == sorted(arrivals)


def test_4_no_more_is_held_than_the_open_batch_may_take() -> None:
    trace = one_station(AdaptiveLaw(0.1), Cost(), rate=12_000.0)
    assert 1 < trace.most_held <= max(trace.limits)


@pytest.mark.parametrize("rate", [5.0, 200.0, 2000.0])
def test_5_with_a_free_permit_no_batch_stays_open_past_its_budget(rate: float) -> None:
    law = AdaptiveLaw(0.1)
    trace = one_station(law, Cost(deviation=0.0), concurrency=8, rate=rate)
    waits = [batch.started - batch.parts[0][0] for batch in trace.done]
    assert max(waits) <= 0.095
    # Records stop coming at the end, and still every one has gone.
    assert sum(batch.size for batch in trace.done) >= trace.admitted - trace.done[-1].limit


@given(LAWS, OBSERVATIONS, st.integers(1, 10_000), st.integers(1, 10_000))
def test_6_a_fuller_batch_never_waits_longer(law: AdaptiveLaw, seen: list[Observation], one: int, other: int) -> None:
    for observation in seen:
        law.observe(observation)
    low, high = sorted((one, other))
    assert 0.0 <= law.linger(high) <= law.linger(low)


def test_6_linger_is_what_the_target_leaves_within_its_cap() -> None:
    law, capped, eager = (AdaptiveLaw(0.1, "batch", linger=linger) for linger in (None, 0.02, 0.0))
    for each in (law, capped, eager):
        feed(each, 100, Cost(deviation=0.0))
    assert law.linger(200) == pytest.approx(0.095 - affine(200), abs=0.001)
    assert law.linger(2000) == 0.0
    assert capped.linger(200) == 0.02
    assert capped.linger(800) == pytest.approx(0.005, abs=0.001)
    assert eager.linger(1) == 0.0


@pytest.mark.parametrize("fixed", [0.0, 0.001, 0.01, 0.05, 0.075])
@pytest.mark.parametrize("per_record", [0.00003, 0.0001, 0.001])
def test_7_without_noise_it_goes_to_the_exact_size_and_stays(fixed: float, per_record: float) -> None:
    law = AdaptiveLaw(0.1, "batch")
    limits = feed(law, 60, Cost(fixed, per_record, deviation=0.0))
    exact = (0.095 - fixed) / per_record
    assert all(abs(limit - exact) <= 1.001 for limit in limits[35:])
    assert max(limits[40:]) - min(limits[40:]) <= 1


@pytest.mark.parametrize("fixed", [0.08, 0.09])
def test_7_also_where_fixed_cost_is_most_of_the_target(fixed: float) -> None:
    limits = feed(AdaptiveLaw(0.1, "batch"), 140, Cost(fixed, 0.0001, deviation=0.0))
    assert all(limit == pytest.approx((0.095 - fixed) / 0.0001, rel=0.02, abs=1.001) for limit in limits[100:])


@given(st.integers(-3, 3), st.integers(0, 1000))
def test_8_limits_do_not_depend_on_the_unit_of_time(power: int, seed: int) -> None:
    factor = 2.0**power  # exact in floating point, so that limits can be equal rather than near
    plain, scaled = AdaptiveLaw(0.1, "batch"), AdaptiveLaw(0.1 * factor, "batch")
    assert feed(plain, 60, seed=seed) == feed(scaled, 60, Cost(0.01 * factor, 0.0001 * factor), seed)


@given(LAWS, OBSERVATIONS)
def test_8_the_same_trace_gives_the_same_limits(law: AdaptiveLaw, seen: list[Observation]) -> None:
    first, second = AdaptiveLaw(0.1), AdaptiveLaw(0.1)
    for observation in seen:
        assert first.observe(observation) == second.observe(observation)
    assert first.learned() == second.learned()


def test_9_a_backlog_upstream_has_no_effect() -> None:
    blind = Run(AdaptiveLaw(0.1), ((Station(Cost()),),), saturated(), 10.0).run()
    seeing = Run(AdaptiveLaw(0.1), ((Station(Cost()),),), saturated(), 10.0, queue_counts=2000).run()
    assert blind.throughput(5.0, 10.0) > 7000
    assert seeing.throughput(5.0, 10.0) < 700, "the mistake this guards against has lost its effect"


@given(st.floats(1e-6, 1e6), st.integers(0, 1000), st.sampled_from([50.0, 95.0, "mean"]))
def test_10_one_outlier_moves_the_limit_little(factor: float, seed: int, percentile: float | Literal["mean"]) -> None:
    law = AdaptiveLaw(0.1, "batch", percentile)
    feed(law, 150, seed=seed)
    # Usual batches, or this one could be the last of several that noise made slow, which is a change by all signs.
    before = feed(law, 8, Cost(deviation=0.0))[-1]
    law.observe(Observation(law.limit, affine(law.limit) * factor))
    assert abs(law.limit - before) <= (0.25 if percentile == "mean" else 0.15) * before


@given(OBSERVATIONS)
def test_10_equal_bounds_fix_the_size(seen: list[Observation]) -> None:
    law = AdaptiveLaw(0.1, min_size=50, max_size=50)
    assert not [change for each in seen for change in law.observe(each) if change.limit != change.before]
    assert law.limit == 50


@pytest.mark.parametrize("scope", ["record", "batch"])
def test_11_a_target_out_of_reach_is_said_once_and_taken_back(scope: Scope) -> None:
    law = AdaptiveLaw(0.1, scope)
    said = [change for _ in range(60) for change in law.observe(Observation(law.limit, 0.15))]
    assert [change.reason for change in said] == ["infeasible"]
    assert law.limit == 1
    assert law.status()["infeasible"] == 1.0
    said = [change for _ in range(60) for change in law.observe(Observation(law.limit, affine(law.limit)))]
    assert [change.reason for change in said].count("feasible") == 1
    assert law.status()["infeasible"] == 0.0
    assert law.limit > 300


def test_11_is_said_after_ten_batches() -> None:
    law = AdaptiveLaw(0.1)
    counts = [index for index in range(1, 30) for _ in law.observe(Observation(1, 0.15))]
    assert counts == [10]


@given(st.integers(1, 8), st.integers(0, 50))
@settings(max_examples=20)
def test_12_batches_may_end_out_of_order(concurrency: int, seed: int) -> None:
    path = ((Station(Cost(deviation=1.0), concurrency),),)
    trace = simulate(AdaptiveLaw(0.1), path, saturated(), 1.0, seed, concurrency)
    starts = [batch.started for batch in trace.done]
    assert concurrency == 1 or len(starts) < 10 or starts != sorted(starts)
    assert trace.most_in_flight == concurrency


# --- traps ------------------------------------------------------------------------------------------------------------


def test_filling_only_with_a_permit_would_hide_the_wait_upstream() -> None:
    late: dict[bool, float] = {}
    for permit_first in (False, True):
        arrivals = poisson(lambda now: 6800.0, 1, 6.0)
        trace = simulate(AdaptiveLaw(0.1), ((Station(Cost()),),), arrivals, 6.0, 1, 1, permit_first)
        waited = [(batch.ended - arrived, count) for batch in trace.done for _, count, arrived in batch.parts]
        late[permit_first] = sum(n for seconds, n in waited if seconds > 0.1) / sum(n for _, n in waited)
    assert late[False] < 0.05 < 0.4 < late[True]


def test_is_not_stuck_at_one_where_fixed_cost_is_most_of_the_target() -> None:
    assert feed(AdaptiveLaw(0.1, "batch"), 100, Cost(0.06, 0.00005))[-1] > 200


def test_batches_that_the_input_kept_small_do_not_lower_the_limit() -> None:
    law = AdaptiveLaw(0.1)
    limit = feed(law, 100)[-1]
    for _ in range(200):
        law.observe(Observation(3, affine(3), 0.05, full=False))
    assert law.limit >= limit


def test_a_full_batch_that_found_a_permit_waited_for_records_not_for_its_size() -> None:
    filling = Observation(100, affine(100), wait=0.2, queued=False)
    law, queueing = AdaptiveLaw(0.1), AdaptiveLaw(0.1)
    for _ in range(60):
        law.observe(filling)
        queueing.observe(structs.replace(filling, queued=True))
    assert law.limit > 150
    assert queueing.limit < 10


@given(LAWS, OBSERVATIONS, st.floats(0.0, 1e3), st.floats(0.0, 1e3), st.integers(2, 64))
def test_a_batch_is_held_to_half_of_the_limit_at_least_and_never_to_more(
    law: AdaptiveLaw, seen: list[Observation], first: float, beyond: float, permits: int
) -> None:
    for each in seen:
        law.observe(each)
    held = law.limit_between(first, first + beyond, permits)
    assert law.limit / 2 <= held <= law.limit


def test_batches_that_would_end_all_together_are_spread_and_others_left_alone() -> None:
    law = AdaptiveLaw(0.1, max_size=400)
    feed(law, 300)
    whole = law.predicted(law.limit)
    together = [law.limit_between(0.0, last * whole, 4) for last in (0.0, 0.25, 0.5)]
    assert together[0] == law.limit / 2
    assert together == sorted(together)
    assert law.limit_between(0.0, 0.75 * whole, 4) == law.limit
    of_batch = AdaptiveLaw(0.1, latency_of="batch", max_size=400)
    feed(of_batch, 300)
    assert of_batch.limit_between(0.0, 0.0, 4) == of_batch.limit


def test_a_batch_that_was_held_to_a_part_of_the_limit_tells_what_the_whole_would_take() -> None:
    laws = [AdaptiveLaw(0.1), AdaptiveLaw(0.1)]
    for law, share in zip(laws, (1.0, 0.5), strict=True):
        for n in range(200):
            small = n % 4 == 0
            size = law.limit // 2 if small else law.limit
            law.observe(Observation(size, affine(size), wait=0.02, permits=4, share=share if small else 1.0))
    # For its own size the wait is long, for the limit's it is not.
    assert laws[0].limit < laws[1].limit


# --- light load -------------------------------------------------------------------------------------------------------


def test_does_not_wait_before_it_knows_what_a_batch_takes() -> None:
    assert AdaptiveLaw(0.1).linger(1) == 0.0


def test_expects_nobody_who_comes_less_often_than_the_budget_lasts() -> None:
    law = AdaptiveLaw(0.2)
    assert law.expects(0.001), "no gap was seen yet"
    for second in range(10):
        law.arrived(1, float(second))
    assert not law.expects(0.19)
    assert not law.expects(1.9), "one more record is not worth a wait"
    assert law.expects(2.01)


def test_records_of_one_moment_are_one_arrival() -> None:
    law = AdaptiveLaw(0.2)
    for second in range(10):
        for _ in range(1000):
            law.arrived(10, float(second))
    assert not law.expects(0.19)


def test_an_idle_hour_does_not_outweigh_the_burst_after_it() -> None:
    law = AdaptiveLaw(0.1)
    law.arrived(1, 0.0)
    for index in range(60):
        law.arrived(1, 3600.0 + index * 0.001)
    assert law.expects(0.05)


def test_five_records_a_second_hardly_wait() -> None:
    latencies = one_station(AdaptiveLaw(0.2), Cost(), seconds=100.0, rate=5.0).latencies()
    assert latencies[-1][0] <= 0.2
    assert quantile(latencies, 0.95) <= 0.04


# --- changes and memory -----------------------------------------------------------------------------------------------


def reasons(law: Law, service: float, batches: int) -> list[str]:
    return [change.reason for _ in range(batches) for change in law.observe(Observation(law.limit, service))]


def test_every_change_has_its_reason() -> None:
    law = AdaptiveLaw(0.1, "batch", max_size=300)
    assert law.observe(Observation(1, 0.0101)) == [Change(1, 2, "first")]
    seen = [change for _ in range(20) for change in law.observe(Observation(law.limit, affine(law.limit)))]
    assert [change.reason for change in seen] == ["growth"] * 7 + ["bounds"]
    feed(law, 200)
    assert "slower" in reasons(law, 4 * affine(300), 5)
    feed(law, 100, Cost(0.04, 0.0004))
    assert "faster" in reasons(law, 0.25 * affine(law.limit, 0.04, 0.0004), 5)


def test_changes_follow_each_other_without_a_gap() -> None:
    law, changes = AdaptiveLaw(0.1, "batch"), list[Change]()
    random = Random(3)
    for _ in range(300):
        changes += law.observe(Observation(law.limit, affine(law.limit) * random.lognormvariate(0.0, 0.2)))
    assert all(change.before == previous.limit for previous, change in pairwise(changes))
    assert changes[-1].limit == law.limit
    notable = [change.limit for change in changes if change.notable]
    assert 8 < len(notable) < len(changes) / 2


def test_goes_on_after_a_restart_with_what_it_had_learned() -> None:
    law = AdaptiveLaw(0.1)
    feed(law, 300)
    again = AdaptiveLaw(0.1)
    assert again.restore(json.loads(json.dumps(law.learned())))
    assert again.limit == law.limit > 300
    assert again.linger(100) == pytest.approx(law.linger(100), rel=1e-3)
    assert feed(again, 50, seed=9)[0] > 300


def test_learned_sizes_fit_a_new_target_and_new_bounds() -> None:
    law = AdaptiveLaw(0.1, "batch")
    feed(law, 300)
    learned = law.learned()
    half, bounded = AdaptiveLaw(0.05, "batch"), AdaptiveLaw(0.1, "batch", max_size=64)
    assert half.restore(learned)
    assert bounded.restore(learned)
    assert half.limit == pytest.approx((law.limit - 100) / 2, rel=0.35)
    assert bounded.limit == 64


def test_knows_nothing_to_remember_before_the_first_batch() -> None:
    assert AdaptiveLaw(0.1).learned() == {}
    assert not AdaptiveLaw(0.1).restore({})


JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = ("setting", "limit", "permits", "fixed", "per_record", "samples", "service_ratios", "record_ratios", "other")


@given(st.sampled_from(KEYS), JUNK)
def test_junk_in_a_checkpoint_is_refused_or_harmless(name: str, junk: object) -> None:
    source, law = AdaptiveLaw(0.1), AdaptiveLaw(0.1)
    feed(source, 30)
    if not law.restore({**source.learned(), name: junk}):
        assert law.learned() == {}
        assert law.limit == 1
    limits = feed(law, 20)
    assert all(1 <= limit <= 10_000 for limit in limits)
    assert all(math.isfinite(figure) for figure in law.status().values())


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"target_latency": 0.0}, "target_latency"),
        ({"target_latency": math.inf}, "target_latency"),
        ({"latency_of": "item"}, "latency_of"),
        ({"percentile": 49}, "percentile"),
        ({"percentile": 100}, "percentile"),
        ({"percentile": "median"}, "percentile"),
        ({"margin": 1.0}, "margin"),
        ({"margin": -0.1}, "margin"),
        ({"min_size": 0}, "min_size"),
        ({"min_size": 10, "max_size": 9}, "max_size"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"linger": -1.0}, "linger"),
        ({"linger": math.nan}, "linger"),
        ({"max_in_flight": 0}, "max_in_flight"),
    ],
)
def test_refuses_numbers_out_of_range_by_name(wrong: dict[str, float], named: str) -> None:
    keys: dict[str, object] = {"target_latency": 0.1, **wrong}
    with pytest.raises(ValueError, match=named):
        AdaptiveLaw(**keys)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_permits_are_the_users_where_given() -> None:
    assert AdaptiveLaw(0.1).permits is None
    assert AdaptiveLaw(0.1, max_in_flight=3).permits == 3
