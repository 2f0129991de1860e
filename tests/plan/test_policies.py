"""Which keys about failures fit a stage, as the plan and the command say it."""

from typing import Any

import pytest

from pipeline import ConfigError, Pipeline
from pipeline.stage import Each, RateLimit, Retry, Stage, Whole
from pipeline.testing import ListSource, PlainListSink
from stages import batchers, processors
from tests.flow.driving import Works, run_of


def same(value: Any) -> Any:
    return value


def refused(stage: Stage) -> str:
    pipeline = Pipeline("p", checkpoint="none") | ListSource(records=[]) | batchers.Fixed(size=2) | stage
    with pytest.raises(ConfigError) as error:
        (pipeline | PlainListSink()).topology()
    return str(error.value)


def test_only_a_stage_that_handles_batches_can_acknowledge_them() -> None:
    for stage in (
        processors.Call(same, acknowledge="all_or_nothing"),
        processors.Filter("n > 1", acknowledge="last_successful"),
    ):
        assert "key 'acknowledge'" in refused(stage) and "single records" in refused(stage)
    text = refused(processors.Call(same, batch=True, aggregate=True, acknowledge="last_successful"))
    assert "key 'acknowledge': an aggregate's batch fails as a whole" in text


def test_a_rate_of_records_is_for_functions_that_take_one() -> None:
    limit = RateLimit(rate=5.0, per="record")
    assert "key 'rate_limit.per'" in refused(processors.Call(same, batch=True, rate_limit=limit))
    fine = Pipeline("p", checkpoint="none") | ListSource(records=[]) | processors.Call(same, rate_limit=limit)
    (fine | PlainListSink()).topology()


def test_what_only_opening_a_stage_tells_is_refused_then() -> None:
    from pipeline.flow.work import make_step

    each = Works(Each(same), name="x", acknowledge="all_or_nothing")
    whole = Works(Whole(same), name="x", rate_limit=RateLimit(rate=5.0, per="record"))
    for spec, key in ((each, "acknowledge"), (whole, "rate_limit.per")):
        with pytest.raises(ConfigError, match=f"stage 'x': key '{key}'"):
            make_step(run_of(spec), "x", spec, spec.work)


def test_exceptions_are_named_or_given_as_classes_and_must_be_there() -> None:
    assert Retry(on={KeyError: "record", TimeoutError: "unavailable"}).on == {
        "KeyError": "record",
        "TimeoutError": "unavailable",
    }
    text = refused(processors.Call(same, retry=Retry(on={"KeyEror": "record", "nowhere.Error": "record"})))
    assert "'KeyEror' is no exception of Python's own; did you mean 'KeyError'?" in text
    assert "module 'nowhere' can't be imported" in text
