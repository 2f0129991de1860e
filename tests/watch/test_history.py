import pytest

from pipeline.watch.history import Sample
from tests.watch.recorded import Batching, Told


def total(samples: list[Sample]) -> int:
    return sum(sample.batchers["batch"].records for sample in samples if "batch" in sample.batchers)


def test_a_long_run_keeps_a_bounded_number_of_samples_and_loses_no_record() -> None:
    told = Told()
    told.begin()
    for _ in range(30_000):
        told.batch(7, 0.02)

    history = told.recorder.history()

    assert 300 <= len(history.samples) <= 601
    assert total(history.samples) == 7 * 30_000 == sum(sample.settled for sample in history.samples)
    ends = [sample.end for sample in history.samples]
    assert [sample.start for sample in history.samples[1:]] == ends[:-1]
    assert ends[-1] == pytest.approx(told.now)


def test_many_batches_in_a_short_time_cost_few_looks() -> None:
    told = Told()
    told.begin()
    for _ in range(10_000):
        told.batch(1, 0.00001)

    assert told.looks < 20


def test_a_longer_run_is_looked_at_less_often() -> None:
    told = Told()
    told.begin()
    for _ in range(20_000):
        told.batch(1, 0.005)

    assert told.looks < 2500


def test_an_idle_run_is_sampled_by_ticks_alone() -> None:
    told = Told()
    told.begin()
    for _ in range(8):
        told.now += 0.25
        told.recorder.tick()

    samples = told.recorder.history().samples
    assert [sample.end for sample in samples] == [0.25 * each for each in range(1, 9)]
    assert samples[0].fills == {"call": 0.5}
    assert samples[0].batchers["batch"].batches == 0


def test_latency_is_that_of_the_oldest_record_or_of_the_batch_as_the_target_says() -> None:
    of_record, of_batch = Told(), Told(Batching(latency_of="batch"))
    for told in (of_record, of_batch):
        told.begin()
        for _ in range(10):
            told.batch(5, 0.08, 0.05)

    of_record_summary, of_batch_summary = (
        told.recorder.history().summary.batchers[0] for told in (of_record, of_batch)
    )
    assert of_record_summary.p95_latency == pytest.approx(0.13, rel=0.02)
    assert of_record_summary.over_share == 1.0
    assert of_batch_summary.p95_latency == pytest.approx(0.08, rel=0.02)
    assert of_batch_summary.over_share == 0.0


def test_a_target_written_with_a_unit_is_understood() -> None:
    told = Told(Batching(target_latency="50ms"))
    told.begin()
    told.batch(1, 0.06)

    assert told.recorder.history().summary.batchers[0].target == 0.05
    assert told.recorder.history().summary.batchers[0].over == 1


def test_the_climb_is_told_and_ends_where_rises_are_far_apart() -> None:
    told = Told()
    told.climb()
    for _ in range(60):
        told.batch(256, 0.0356)
    told.resize(300, "fit")

    summary = told.recorder.history().summary.batchers[0]
    assert (summary.start, summary.warm, summary.first_size) == (1, False, 1)
    assert (summary.climb_limit, summary.climb_batches) == (256, 8)
    assert summary.resizes == {"first": 1, "growth": 7, "fit": 1}


def test_a_limit_that_came_from_the_run_before_is_said_to() -> None:
    told = Told(limit=700, fixed=0.01, per_record=0.0001)
    told.begin()

    summary = told.recorder.history().summary.batchers[0]
    assert (summary.start, summary.warm) == (700, True)


def test_a_change_for_the_worse_names_its_factor_its_stage_and_what_was_late() -> None:
    told = Told()
    told.climb()
    told.slow_down()

    turn = told.recorder.history().summary.batchers[0].turns[0]

    assert (turn.before, turn.limit, turn.reason) == (256, 80, "slower")
    assert turn.factor == pytest.approx((0.010 + 0.0003 * 256) / (0.010 + 0.0001 * 256))
    assert turn.stage == "call"
    assert turn.late == 4
    assert turn.settled == 100


def test_a_stage_before_the_batcher_is_never_named_for_a_change() -> None:
    told = Told()
    told.climb()
    for stage in ("read", "read", "read"):
        told.batch(256, 0.0868, stage=stage)
    told.per_record = 0.0003
    told.resize(80, "slower")
    for _ in range(30):
        told.batch(100, 0.040, stage="read")

    assert told.recorder.history().summary.batchers[0].turns[0].stage == ""


def test_of_many_resizes_the_newest_are_kept_and_all_are_counted() -> None:
    told = Told()
    told.begin()
    for place in range(1000):
        told.batch(10, 0.01)
        told.resize(10 + place, "fit")

    history = told.recorder.history()
    assert len(history.resizes) == 200
    assert history.resizes[-1].limit == 1009
    assert history.summary.batchers[0].resizes == {"fit": 1000}
    assert [each.limit for each in history.summary.batchers[0].last_resizes] == list(range(1000, 1010))


def test_a_turn_is_kept_however_many_small_changes_follow_it() -> None:
    told = Told()
    told.climb()
    told.slow_down()
    for place in range(300):
        told.batch(100, 0.04)
        told.resize(100 + place % 2, "fit")

    resizes = told.recorder.history().resizes
    assert [each.reason for each in resizes].count("slower") == 1
    assert len(resizes) == 201
    assert resizes[0].reason == "slower"


def test_triggers_are_counted_by_sample() -> None:
    told = Told()
    told.climb()

    history = told.recorder.history()
    assert sum(sample.batchers["batch"].triggers.get("size", 0) for sample in history.samples) == 58
    assert history.summary.batchers[0].triggers == {"size": 58}


def test_what_happens_after_the_end_is_not_recorded() -> None:
    told = Told()
    told.climb()
    told.recorder.end()
    before = len(told.recorder.history().samples)

    told.now += 60
    told.batch(5, 0.1)
    told.recorder.tick()

    history = told.recorder.history()
    assert len(history.samples) == before
    assert history.summary.batchers[0].batches == 58


def test_what_happens_before_the_run_began_is_not_recorded() -> None:
    told = Told()
    told.batch(5, 0.1)
    told.resize(3, "fit")
    told.recorder.tick()

    history = told.recorder.history()
    assert (history.samples, history.resizes, told.looks) == ([], [], 0)
