"""The report of a run as one page that needs nothing from a network: words on top, plots, and all data as tables."""

import copy
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from string import Template

from pipeline.watch.explain import Explanation, explain
from pipeline.watch.history import BatcherSample, History, Sample
from pipeline.watch.plot import Line, Mark, Plot, draw
from pipeline.watch.report import Report
from pipeline.watch.story import Story, story_of_report
from pipeline.watch.summary import TURNS, BatcherSummary, Resize
from pipeline.watch.words import amount, seconds_text

__all__ = ("page",)

Text = Callable[[object], str]
Row = Sequence[object]

_POINTS = 240
"""Samples drawn: a plot is not wider than twice that."""
_COARSE = 60
"""The same where single batches would make a line jump."""
_ROWS = 60
_DOTS = 60
_STYLES = "abcdefgh"
_BEYOND = 4.0
"""Times the target up to which latencies are drawn to scale: one batch that was very late must not flatten the rest."""


def page(report: Report, history: History, mask: Callable[[str], str] = str) -> str:
    """Return the page of a run that has ended, as HTML. ``mask`` hides secrets in every text."""
    story = story_of_report(report, history.summary)
    return _Page(report, story, explain(story), history, mask).render()


class _Page:
    """Writes the parts of the page; every text goes through `text`."""

    def __init__(
        self, report: Report, story: Story, said: Explanation, history: History, mask: Callable[[str], str]
    ) -> None:
        self._report = report
        self._story = story
        self._said = said
        self._resizes = history.resizes
        self._samples = _thinned(history.samples, _POINTS)
        self._coarse = _thinned(history.samples, _COARSE)
        self._end = max((sample.end for sample in self._samples), default=report.seconds)
        self._mask = mask
        self._plots = 0

    def text(self, value: object) -> str:
        return html.escape(self._mask(str(value)))

    def render(self) -> str:
        template = Template(files("pipeline.watch").joinpath("page.html").read_text(encoding="utf-8"))
        body = "\n".join([self._figures(), self._advice(), *self._words(), *self._all_plots(), *self._tables()])
        return template.substitute(
            title=self.text(f"{self._report.pipeline}: run {self._report.run}"),
            heading=self.text(self._report.pipeline),
            verdict=self.text(self._said.verdict),
            body=body,
        )

    # --- words ---

    def _figures(self) -> str:
        report = self._report
        found = [
            ("records read", amount(report.account.read), f"{amount(report.throughput)} a second"),
            ("time", seconds_text(report.seconds), report.outcome),
        ]
        for batcher in self._story.summary.batchers:
            if batcher.batches:
                of = f", target {seconds_text(batcher.target)}" if batcher.target is not None else ""
                found.append((f"batch of '{batcher.name}'", amount(batcher.typical), "records, typically"))
                found.append((f"p95 of '{batcher.name}'", seconds_text(batcher.p95_latency), _over(batcher) + of))
        found.append(("dead letters", amount(report.account.dead_lettered), "in this run"))
        rows = "".join(
            f"<div><dt>{self.text(name)}</dt><dd>{self.text(value)}<small>{self.text(more)}</small></dd></div>"
            for name, value, more in found
        )
        return f'<dl class="figures">{rows}</dl>'

    def _advice(self) -> str:
        return (
            f'<section class="advice"><h2>What held it up</h2>{self._list([self._said.bottleneck])}'
            f"<h2>What to change</h2>{self._list(self._said.advice)}</section>"
        )

    def _words(self) -> Iterator[str]:
        if self._said.batchers:
            yield "<h2>What the batchers did</h2>"
        for name, sentences in self._said.batchers.items():
            yield f"<h3>{self.text(name)}</h3>{self._list(sentences)}"

    def _list(self, sentences: Iterable[str]) -> str:
        return '<ul class="said">' + "".join(f"<li>{self.text(each)}</li>" for each in sentences) + "</ul>"

    # --- plots ---

    def _all_plots(self) -> Iterator[str]:
        yield "<h2>Over time</h2>"
        if len(self._samples) < 2:
            yield '<p class="soft">The run was too short for plots.</p>'
            return
        yield '<div class="plots">'
        for batcher in self._story.summary.batchers:
            yield from self._batcher_plots(batcher)
        yield self._draw(
            "Throughput",
            "Records settled a second",
            [Line("records a second", [(_middle(each), each.throughput) for each in self._coarse], "a")],
            amount,
        )
        yield self._draw(
            "Unsettled records",
            "Records that were read and have not ended yet",
            [Line("unsettled", [(each.end, each.unsettled) for each in self._samples], "c")],
            amount,
        )
        names = list(dict.fromkeys(name for sample in self._samples for name in sample.fills))
        yield self._draw(
            "How full the channels are",
            "The channel into each stage; full ones hold up what is before them",
            self._shares(names, lambda sample: sample.fills, "into "),
            _percent,
            top=1.0,
            banded=True,
        )
        working = [stage.name for stage in self._report.stages if stage.role != "batcher"]
        yield self._draw(
            "How busy the stages are",
            "The share of the time that each stage worked; one at 100 % is what the others wait for",
            self._shares(working, lambda sample: sample.busy, ""),
            _percent,
            top=1.0,
            banded=True,
        )
        yield "</div>"

    def _batcher_plots(self, batcher: BatcherSummary) -> Iterator[str]:
        seen = [(each, each.batchers[batcher.name]) for each in self._samples if batcher.name in each.batchers]
        cut = [(sample, each) for sample, each in seen if each.batches]
        name = self.text(batcher.name)
        changes = [each for each in self._resizes if each.batcher == batcher.name]
        yield self._draw(
            f"{name}: batch size",
            "Records in a batch, on average, and the limit, which the target sets; marks are changes of the limit",
            [
                Line("limit", [(sample.end, each.limit) for sample, each in seen], "b dashed", stepped=True),
                Line("records in a batch", [(_middle(sample), each.size) for sample, each in cut], "a"),
            ],
            amount,
            marks=[self._resize_mark(each) for each in changes[-_DOTS:]],
            dots=(_newest(changes), "b"),
        )
        yield self._latency_plot(batcher, cut)
        if batcher.target is not None:
            yield self._draw(
                f"{name}: linger",
                "How long the first record of a batch may wait for others, by what the target leaves",
                [Line("linger", [(sample.end, each.linger) for sample, each in seen], "d", stepped=True)],
                seconds_text,
            )

    def _latency_plot(self, batcher: BatcherSummary, cut: list[tuple[Sample, BatcherSample]]) -> str:
        target = batcher.target
        lines = [
            Line(
                "p95 of each stretch", [(_middle(sample), each.latencies.quantile(0.95)) for sample, each in cut], "a"
            ),
            Line("median", [(_middle(sample), each.latencies.quantile(0.5)) for sample, each in cut], "c faint"),
        ]
        if target is not None:
            lines.append(Line("target", [(0.0, target), (self._end, target)], "bad dashed", whole=True))
        late = [
            Mark(_middle(sample), self.text(_late(sample, each)), "bad", each.latencies.largest)
            for sample, each in cut
            if each.over
        ]
        return self._draw(
            f"{self.text(batcher.name)}: latency",
            "From the admission of a batch's oldest record to its end, against the target; dots are batches over it"
            if batcher.settings.get("latency_of") != "batch"
            else "From the dispatch of a batch to its end, against the target; dots are batches over it",
            lines,
            seconds_text,
            marks=late,
            top=None if target is None else _BEYOND * target,
            dots=("over the target", "bad"),
        )

    def _shares(self, names: list[str], of: Callable[[Sample], dict[str, float]], before: str) -> list[Line]:
        return [
            Line(
                before + self.text(name),
                [(_middle(sample), of(sample)[name]) for sample in self._coarse if name in of(sample)],
                _STYLES[place % len(_STYLES)],
                note=f": {_percent(self._mean(name, of))} on average",
            )
            for place, name in enumerate(names)
        ]

    def _mean(self, name: str, of: Callable[[Sample], dict[str, float]]) -> float:
        return sum(of(each).get(name, 0.0) * each.seconds for each in self._coarse) / max(self._end, 1e-9)

    def _draw(
        self,
        title: str,
        about: str,
        lines: list[Line],
        unit: Callable[[float], str],
        *,
        marks: Sequence[Mark] = (),
        top: float | None = None,
        banded: bool = False,
        dots: tuple[str, str] | None = None,
    ) -> str:
        self._plots += 1
        turns = [self._turn_mark(each) for each in self._resizes if each.reason in TURNS]
        return draw(
            Plot(
                title,
                about,
                self._end,
                lines,
                unit,
                [*turns, *marks],
                top,
                banded=banded,
                counts=unit is amount,
                dots=dots,
                number=self._plots,
            )
        )

    def _turn_mark(self, change: Resize) -> Mark:
        return Mark(change.seconds, self.text(_change(change)), "turn", word=self.text(change.reason))

    def _resize_mark(self, change: Resize) -> Mark:
        return Mark(change.seconds, self.text(_change(change)), "turn" if change.reason in TURNS else "b", change.limit)

    # --- tables ---

    def _tables(self) -> Iterator[str]:
        yield "<h2>Account</h2>"
        account = self._report.account.as_dict()
        heads = [name.replace("_", "-") for name in account]
        yield self._table("Each record once, by how it ended", heads, [[amount(each) for each in account.values()]])
        yield "<h2>Stages</h2>"
        yield self._table("Seconds are those of a batch; shares are of the whole run", _STAGE_HEADS, self._stage_rows())
        if self._resizes:
            kept = f"Changes of limits worth a line, the newest {len(self._resizes)}"
            yield self._folded("Changes of limits", kept, _CHANGE_HEADS, self._change_rows())
        if self._samples:
            thin = _thinned(self._samples, _ROWS)
            yield self._folded(
                "Data of the plots", "Each row covers the time up to the next", *self._sample_table(thin)
            )

    def _stage_rows(self) -> Iterator[Row]:
        for each in self._report.stages:
            failed = sum(each.failed.values())
            times = ["", ""] if each.role == "batcher" else [_time(each.mean_seconds), _percent(each.busy)]
            yield [
                each.name,
                f"{each.role} {each.kind}",
                amount(each.records_in),
                amount(each.records_out),
                amount(each.filtered),
                amount(failed),
                amount(each.retries),
                amount(each.batches),
                *times,
                _percent(each.waiting_in),
                _percent(each.waiting_out),
            ]

    def _change_rows(self) -> Iterator[Row]:
        for each in self._resizes:
            factor = f"{each.factor:.2g} times the time" if each.factor else ""
            at = self._story.at(each.seconds)
            yield [at, each.batcher, amount(each.before), amount(each.limit), each.reason, factor, each.stage]

    def _sample_table(self, samples: list[Sample]) -> tuple[list[str], list[Row]]:
        batchers = [batcher.name for batcher in self._story.summary.batchers]
        channels = list(dict.fromkeys(name for sample in samples for name in sample.fills))
        heads = ["from", "records/s", "unsettled"]
        for name in batchers:
            heads += [f"{name}: size", "limit", "p95", "over target", "linger", "cut because"]
        rows: list[Row] = []
        for sample in samples:
            cells: list[object] = [
                seconds_text(sample.start),
                amount(round(sample.throughput)),
                amount(sample.unsettled),
            ]
            for name in batchers:
                cells += _batcher_cells(sample.batchers.get(name, BatcherSample()))
            rows.append([*cells, *(_percent(sample.fills.get(name, 0.0)) for name in channels)])
        return heads + [f"into {name}" for name in channels], rows

    def _folded(self, summary: str, caption: str, heads: Sequence[str], rows: Iterable[Row]) -> str:
        return f"<details><summary>{self.text(summary)}</summary>{self._table(caption, heads, rows)}</details>"

    def _table(self, caption: str, heads: Sequence[str], rows: Iterable[Row]) -> str:
        cells = [[str(each) for each in row] for row in rows]
        numeric = [all(row[place][:1].isdigit() or not row[place] for row in cells) for place in range(len(heads))]
        head = self._row("th", heads, numeric)
        body = "".join(self._row("td", row, numeric) for row in cells)
        return (
            f'<div class="wide" tabindex="0" role="group" aria-label="{self.text(caption)}"><table>'
            f"<caption>{self.text(caption)}</caption><thead>{head}</thead><tbody>{body}</tbody></table></div>"
        )

    def _row(self, tag: str, cells: Iterable[object], numeric: list[bool]) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kinds = (' class="n"' if each else "" for each in numeric)
        return (
            "<tr>"
            + "".join(f"<{tag}{scope}{kind}>{self.text(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
            + "</tr>"
        )


_STAGE_HEADS = (
    *("stage", "kind", "in", "out", "filtered", "failed", "retries", "batches", "a batch takes"),
    *("at work", "for input", "for output"),
)
_CHANGE_HEADS = ("at", "batcher", "before", "limit", "reason", "", "from")


def _batcher_cells(each: BatcherSample) -> list[object]:
    reasons = ", ".join(f"{name} {count}" for name, count in each.triggers.items())
    p95 = _time(each.latencies.quantile(0.95))
    return [
        amount(round(each.size)),
        amount(each.limit),
        p95,
        f"{each.over} of {each.batches}",
        _time(each.linger),
        reasons,
    ]


def _thinned(samples: list[Sample], most: int) -> list[Sample]:
    """Return at most so many samples that cover the same time, none but the last much shorter than the others."""
    if not samples:
        return []
    width = (samples[-1].end - samples[0].start) / most
    found: list[Sample] = []
    for sample in copy.deepcopy(samples):
        if found and found[-1].seconds < width * 0.999:
            found[-1].merge(sample)
        else:
            found.append(sample)
    return found


def _change(change: Resize) -> str:
    factor = f", {change.factor:.2g} times the time" if change.factor else ""
    where = f" in {change.stage}" if change.stage else ""
    return f"{seconds_text(change.seconds)}: {change.reason}{factor}{where}: {change.before:,} to {change.limit:,}"


def _newest(changes: list[Resize]) -> str:
    return f"the newest {_DOTS} changes of the limit" if len(changes) > _DOTS else "a change of the limit"


def _late(sample: Sample, each: BatcherSample) -> str:
    return (
        f"{seconds_text(_middle(sample))}: {each.over} over the target, longest {seconds_text(each.latencies.largest)}"
    )


def _over(batcher: BatcherSummary) -> str:
    return f"{batcher.over_share:.1%} over" if batcher.target is not None else "of a batch"


def _middle(sample: Sample) -> float:
    return (sample.start + sample.end) / 2


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _time(seconds: float) -> str:
    return seconds_text(seconds) if seconds else "0"
