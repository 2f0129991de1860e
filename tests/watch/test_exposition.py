"""Metrics as text: what Prometheus's own parser reads is what was meant, and parts add up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.watch.exposition import Metric, add_up, counter, expose, gauge, histogram, label_name
from pipeline.watch.metrics import Histogram

parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client; pip install '.[test]'")

LABELS = st.dictionaries(st.text(min_size=1, max_size=5).map(label_name), st.text(max_size=20), max_size=3)


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every value of a text by name and labels, as Prometheus's parser understands it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(LABELS, st.floats(allow_nan=False))
def test_any_label_and_any_value_comes_back_from_the_parser(labels: dict[str, str], value: float) -> None:
    labels = {name: text.encode("utf-8", "replace").decode() for name, text in labels.items()}
    text = expose([gauge("pipeline_test", "Any\\ \n help.", [(labels, value)])])
    assert parsed(text) == {("pipeline_test", tuple(sorted(labels.items()))): value}
    assert len(text.split("\n")) == 4, "a label began a line of its own"


def test_each_metric_has_its_help_and_type_and_one_without_values_is_left_out() -> None:
    text = expose([counter("a_total", "How many.", [({}, 3)]), gauge("b", "Nothing.", [])])
    assert text == "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n"
    assert expose([gauge("c", "x", [({}, math.inf), ({"n": "1"}, math.nan)])]).endswith('c +Inf\nc{n="1"} NaN\n')


@given(st.lists(st.lists(st.floats(0, 100), max_size=20), min_size=1, max_size=5))
def test_histograms_of_several_processes_add_up_to_that_of_all_values(processes: list[list[float]]) -> None:
    def observed(values: list[float]) -> list[Metric]:
        seen = Histogram()
        for value in values:
            seen.observe(value)
        return [histogram("pipeline_batch_seconds", "Seconds.", [({"stage": "call"}, seen)])]

    together = parsed(expose(add_up(map(observed, processes))))
    whole = parsed(expose(observed([value for values in processes for value in values])))
    assert together.keys() == whole.keys()
    for name, value in whole.items():
        assert together[name] == pytest.approx(value)  # pyright: ignore[reportUnknownMemberType]
    counts = [value for (name, _), value in whole.items() if name.endswith("_bucket")]
    assert counts == sorted(counts), "buckets are not cumulative"


def test_gauges_add_up_or_give_the_largest_as_they_say() -> None:
    def process(lag: float) -> list[Metric]:
        return [
            gauge("lag", "x", [({}, lag)], "max"),
            gauge("held", "x", [({}, lag)]),
            counter("n_total", "x", [({}, 2)]),
        ]

    found = {metric.name: metric.points[0].value for metric in add_up([process(1), process(5), process(2)])}
    assert found == {"lag": 5, "held": 8, "n_total": 6}


def test_buckets_that_differ_are_refused() -> None:
    parts = [[histogram("h", "x", [({}, Histogram(bounds))])] for bounds in ((1.0,), (2.0,))]
    with pytest.raises(ValueError, match="h: buckets that differ"):
        add_up(parts)
