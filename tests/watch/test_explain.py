from typing import Any

import msgspec
import pytest

from pipeline.watch.explain import Explanation, explain
from pipeline.watch.report import Account, StageStatus
from pipeline.watch.story import Story, story_of, story_of_report
from pipeline.watch.summary import BatcherSummary, Resize, StageTraits, Summary
from tests.watch.recorded import Told, report_of, stage_status_of


def explained(told: Told) -> Explanation:
    return explain(story_of_report(report_of(told), told.recorder.history().summary))


def explained_of(stages: list[StageStatus], traits: dict[str, StageTraits], *batchers: BatcherSummary) -> Explanation:
    story = Story(
        pipeline="delays",
        run=1,
        outcome="done",
        seconds=10.0,
        account=Account(read=1000, written=1000),
        stages=stages,
        summary=Summary(0.0, list(batchers), traits),
    )
    return explain(story)


def advice_for(stages: list[StageStatus], traits: dict[str, StageTraits], *batchers: BatcherSummary) -> list[str]:
    return explained_of(stages, traits, *batchers).advice


def batcher(**more: Any) -> BatcherSummary:
    settings: dict[str, Any] = {
        **{"target_latency": 0.1, "latency_of": "record", "percentile": 95, "margin": 0.05, "min_size": 1},
        **{"max_size": 5000, **more.pop("settings", {})},
    }
    given: dict[str, Any] = {"name": "batch", "settings": settings, "batches": 200, "records": 20_000, "last": 300}
    given |= {"fixed": 0.004, "per_record": 0.0001, "headroom": 2.0, "triggers": {"size": 200}, **more}
    return BatcherSummary(**given)


SLOW_CALL = [stage_status_of("read", "source", 0.25), stage_status_of("call", "processor", 0.9)]
ASYNCHRONOUS = {"call": StageTraits(executor="inline", asynchronous=True)}


def test_the_climb_and_the_step_are_told_with_their_numbers() -> None:
    told = Told()
    told.climb()
    told.slow_down()

    lines = explained(told).batchers["batch"]

    assert lines[0] == "started at 1; the first batch (1 record) took 10ms; grew to 256 in 8 batches (110ms)"
    assert (
        "batches got 2.4 times slower (stage 'call') and the limit fell from 256 to 80, then to about 100" in lines[1]
    )
    assert lines[1].endswith("; 4 batches in a row were over the target")
    assert any(
        line.startswith("9 changes of the limit worth a line: 1 by the first timing, 7 doubling") for line in lines
    )
    assert any("against a target of 100ms: 3.6% of 112 batches were over it" in line for line in lines)


def test_a_saved_report_tells_the_same_as_the_run_that_left_it() -> None:
    told = Told()
    told.climb()
    told.slow_down()
    report, summary = report_of(told), told.recorder.history().summary
    saved = {
        **{"account": report.account.as_dict(), "seconds": report.seconds, "error": "", "bottleneck": ""},
        **{"stages": msgspec.to_builtins(report.stages), "history": msgspec.to_builtins(summary)},
    }

    story = story_of("delays", 1, summary.started, "done", msgspec.json.decode(msgspec.json.encode(saved)))

    assert story is not None
    assert list(explain(story).lines()) == list(explain(story_of_report(report, summary)).lines())


@pytest.mark.parametrize("saved", [None, 7, {}, {"account": {}, "seconds": "long"}])
def test_a_report_that_can_not_be_read_has_no_story(saved: Any) -> None:
    assert story_of("delays", 1, 0.0, "done", saved) is None


def test_a_report_from_before_there_were_histories_still_names_the_bottleneck() -> None:
    saved = {"account": {"read": 5}, "seconds": 2.0, "stages": msgspec.to_builtins(SLOW_CALL)}

    story = story_of("delays", 3, 0.0, "done", saved)

    assert story is not None
    assert explain(story).bottleneck == "processor 'call' worked 90% of the time"


def test_an_asynchronous_stage_is_given_as_much_concurrency_as_makes_the_next_one_the_slowest() -> None:
    (advice,) = advice_for(SLOW_CALL, ASYNCHRONOUS)

    assert advice.startswith("raise concurrency of 'call' from 1 to 4")
    assert "'read' (25% now)" in advice


def test_an_inline_function_is_moved_out_of_the_thread() -> None:
    (advice,) = advice_for(SLOW_CALL, {"call": StageTraits(executor="inline")})

    assert "executor: thread if it waits, or executor: process if it computes" in advice


def test_a_sink_without_a_batcher_is_given_one_and_with_one_is_at_its_limit() -> None:
    stages = [stage_status_of("read", "source", 0.2), stage_status_of("archive", "sink", 0.9)]
    traits = {"archive": StageTraits(one_at_a_time=True)}

    assert advice_for(stages, traits) == ["put a batcher before 'archive': it was handed 100 records at a time"]
    assert "takes one batch at a time" in advice_for(stages, traits, batcher())[-1]


def test_a_source_that_is_the_slowest_asks_for_nothing_behind_it() -> None:
    (advice,) = advice_for([stage_status_of("read", "source", 0.9)], {})

    assert "nothing behind 'read' would make it faster" in advice


def test_stages_that_fill_the_thread_together_are_told_apart_from_an_idle_run() -> None:
    three = [stage_status_of(name, "processor", 0.3) for name in ("a", "b", "c")]
    traits = {name: StageTraits(executor="inline") for name in ("a", "b", "c")}
    waiting = {name: StageTraits(executor="inline", asynchronous=True) for name in ("a", "b", "c")}

    assert "executor: process" in advice_for(three, traits)[0]
    assert advice_for(three, waiting)[0].startswith("nothing: ")


def test_a_largest_size_that_holds_the_batcher_is_raised_to_what_the_target_allows() -> None:
    held = batcher(last=100, settings={"max_size": 100})

    advice = advice_for(SLOW_CALL, ASYNCHRONOUS, held)[0]

    # (0.1 s less 5 %) over twice the predicted time: 0.0475 = 0.004 + 0.0001 n
    assert (
        "raise max_size of 'batch' from 100: the target leaves room for about 430, 28% more records a second" in advice
    )


def test_a_fixed_cost_that_eats_the_batch_asks_for_a_longer_target() -> None:
    costly = batcher(fixed=0.025, last=225)

    assert (
        "53% of a batch's time is spent whatever its size: target_latency 200ms"
        in advice_for(SLOW_CALL, ASYNCHRONOUS, costly)[0]
    )


def test_a_target_that_buys_nothing_can_be_shorter() -> None:
    cheap = batcher(fixed=0.001, last=465)

    assert "could be 50ms for 2% fewer records a second" in advice_for(SLOW_CALL, ASYNCHRONOUS, cheap)[0]


def test_a_target_that_batches_are_over_is_not_told_to_be_shorter() -> None:
    late = batcher(fixed=0.001, last=465, over=30)

    assert not [line for line in advice_for(SLOW_CALL, ASYNCHRONOUS, late) if "could be" in line]


def test_a_target_that_costs_nothing_is_told_in_words() -> None:
    free = batcher(fixed=0.0, last=465)

    assert "could be 50ms for as many records a second" in advice_for(SLOW_CALL, ASYNCHRONOUS, free)[0]


@pytest.mark.parametrize(
    ("before", "limit", "told"),
    [
        (256, 128, "batches got 1.5 times slower and the limit fell from 256 to 128"),
        (128, 256, "the limit rose from 128 to 256"),
        (128, 128, "batches got 1.5 times slower and the limit stayed at 128"),
    ],
)
def test_a_limit_that_moved_against_its_reason_is_told_without_it(before: int, limit: int, told: str) -> None:
    turn = Resize(batcher="batch", seconds=1.0, before=before, limit=limit, reason="slower", batches=9, factor=1.5)

    lines = explained_of(SLOW_CALL, ASYNCHRONOUS, batcher(turns=[turn])).batchers["batch"]

    assert any(told in line for line in lines)
    assert told.startswith("batches") or not any("slower" in line for line in lines)


def test_a_target_out_of_reach_is_told_with_the_least_that_is_not() -> None:
    advice = advice_for(SLOW_CALL, ASYNCHRONOUS, batcher(fixed=0.19, infeasible=True, last=1))[0]

    assert "target_latency of 'batch' (100ms) is out of reach: 1 record takes 400ms with all waits" in advice


def test_more_late_batches_than_the_percentile_allows_are_not_passed_over() -> None:
    advice = advice_for(SLOW_CALL, ASYNCHRONOUS, batcher(over=40))[0]

    assert advice.startswith("20% of the batches of 'batch' were over the target, 5% may be")


def test_uneven_batches_are_named_before_sizes() -> None:
    advice = advice_for(SLOW_CALL, ASYNCHRONOUS, batcher(headroom=6.8))[0]

    assert advice.startswith("batches of 'batch' vary: 6.8 times what their size explains")


def test_batches_that_were_rarely_full_are_not_made_larger() -> None:
    advice = advice_for(SLOW_CALL, ASYNCHRONOUS, batcher(triggers={"size": 10, "latency": 190}))[0]

    assert "rarely full" in advice


def test_a_run_without_records_says_so_and_asks_for_nothing() -> None:
    story = Story(pipeline="delays", run=1, outcome="done", seconds=0.1, account=Account())

    said = explain(story)
    assert said.bottleneck == "nothing: nothing was read"
    assert said.advice[0].startswith("nothing: ")
