"""Metrics as data, and in the text format that Prometheus reads (version 0.0.4).

Counters and histograms with fixed buckets are sums, so those of several processes can be added up; a gauge says whether
it is a sum too, or whether the largest is what counts.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct, field

from pipeline.watch.metrics import Histogram

__all__ = ("CONTENT_TYPE", "Metric", "Point", "add_up", "counter", "expose", "gauge", "histogram", "label_name")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Point(Struct):
    """One value of a metric, told from its others by labels. Of a histogram ``value`` is the sum of what was seen."""

    labels: dict[str, str]
    value: float = 0.0
    bounds: tuple[float, ...] = ()
    counts: list[int] = field(default_factory=list[int])
    """Of a histogram: how many values are within each bound and over the one before, and last those over all."""


class Metric(Struct):
    """A named metric with all its values."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    points: list[Point] = field(default_factory=list[Point])
    together: Literal["sum", "max"] = "sum"
    """What several processes amount to together."""


def counter(name: str, text: str, points: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """Return a counter: it only grows. Its name ends in ``_total``."""
    return Metric(name, "counter", text, [Point(dict(labels), value) for labels, value in points])


def gauge(
    name: str, text: str, points: Iterable[tuple[Mapping[str, str], float]], together: Literal["sum", "max"] = "sum"
) -> Metric:
    """Return a gauge: it goes up and down."""
    return Metric(name, "gauge", text, [Point(dict(labels), value) for labels, value in points], together)


def histogram(name: str, text: str, points: Iterable[tuple[Mapping[str, str], Histogram]]) -> Metric:
    """Return a histogram."""
    found = [Point(dict(labels), each.total, each.bounds, list(each.counts)) for labels, each in points]
    return Metric(name, "histogram", text, found)


def add_up(processes: Iterable[Sequence[Metric]]) -> list[Metric]:
    """Return what several processes, or several pipelines, amount to together: one metric of each name.

    :raises ValueError: when histograms of one name and labels have other buckets.
    """
    found: dict[str, Metric] = {}
    for metrics in processes:
        for metric in metrics:
            total = found.setdefault(metric.name, Metric(metric.name, metric.kind, metric.help, [], metric.together))
            _add(total, metric)
    return list(found.values())


def expose(metrics: Iterable[Metric]) -> str:
    """Return metrics as text: for each its help, its type, and a line a value; those without a value are left out."""
    return "".join(f"{line}\n" for metric in metrics if metric.points for line in _lines(metric))


def label_name(text: str) -> str:
    """Return a text as the name of a label: what such a name can't have becomes an underscore."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name if name[:1].isalpha() else f"x{name}"


def _add(total: Metric, more: Metric) -> None:
    known = {_key(point): point for point in total.points}
    for point in more.points:
        same = known.get(_key(point))
        if same is None:
            same = Point(dict(point.labels), point.value, point.bounds, list(point.counts))
            total.points.append(same)
            known[_key(same)] = same
            continue
        if same.bounds != point.bounds:
            raise ValueError(f"{total.name}: buckets that differ can't be added up")
        same.value = max(same.value, point.value) if total.together == "max" else same.value + point.value
        same.counts = [here + there for here, there in zip(same.counts, point.counts, strict=True)]


def _key(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(point.labels.items()))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for point in metric.points:
        if metric.kind == "histogram":
            yield from _buckets(metric.name, point)
        else:
            yield f"{metric.name}{_labels(point.labels)} {_number(point.value)}"


def _buckets(name: str, point: Point) -> Iterator[str]:
    seen = 0
    for bound, count in zip((*point.bounds, math.inf), point.counts, strict=True):
        seen += count
        yield f"{name}_bucket{_labels(point.labels | {'le': _number(bound)})} {seen}"
    yield f"{name}_sum{_labels(point.labels)} {_number(point.value)}"
    yield f"{name}_count{_labels(point.labels)} {seen}"


def _labels(labels: Mapping[str, str]) -> str:
    said = ",".join(f'{name}="{_escaped(value, quoted=True)}"' for name, value in labels.items())
    return f"{{{said}}}" if said else ""


def _escaped(text: str, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    # A lone surrogate can't be encoded, and what else could end a line somewhere has no place in a label.
    text = text.encode("utf-8", "replace").decode()
    return text.replace('"', '\\"') if quoted else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
