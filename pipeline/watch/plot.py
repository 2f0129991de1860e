"""Plots over time as SVG, drawn by hand: lines, marks and what they mean, without anything from a network."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.watch.words import seconds_text

__all__ = ("Line", "Mark", "Plot", "draw")

_WIDTH, _HEIGHT = 520, 230
_BAND = 52
_WORD = 64
"""Room that the word beside a mark needs, on a phone too."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 26
_FLIP = _WIDTH * 0.8
_GAP = 0.05
"""Share of the whole time without a value after which a line is broken."""
_TICKS = 4
_STEPS = (1, 2, 5, 10)
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Line:
    """Values over seconds. ``style`` is a class of the page's style: a colour, maybe with a dash."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str
    stepped: bool = False
    """Whether a value holds up to the next one."""
    whole: bool = False
    """Whether it is one line however far its points lie apart."""
    note: str = ""
    """Stands beside the label of a band."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something at one moment: a dot at a value, or, without one, a line from bottom to top with a word beside it."""

    seconds: float
    label: str
    style: str
    value: float | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """What to draw; ``top`` bounds the values shown, what is above is drawn at the edge. Texts are escaped already.

    ``banded`` gives each line a band of its own, one below the other, from 0 to ``top``. ``dots`` says in the legend
    what the dots are. ``counts`` keeps marks of the axis at whole numbers.
    """

    title: str
    about: str
    end: float
    lines: Sequence[Line]
    unit: Callable[[float], str]
    marks: Sequence[Mark] = field(default_factory=list[Mark])
    top: float | None = None
    banded: bool = False
    counts: bool = False
    dots: tuple[str, str] | None = None
    number: int = 0
    """Makes ids of the page unique."""


def draw(plot: Plot) -> str:
    """Return a ``<figure>`` with the plot and its legend."""
    if plot.banded:
        return _draw_bands(plot)
    return _framed(plot, _HEIGHT, _drawn(plot, _Scale(plot)), _legend(plot))


def _drawn(plot: Plot, scale: "_Scale") -> Iterator[str]:
    yield from _values(plot, scale)
    yield from _times(scale, _HEIGHT)
    yield from _bars(plot, scale, _HEIGHT)
    yield from (piece for line in plot.lines for piece in _line(line, scale))
    yield from (_dot(mark, scale) for mark in plot.marks if mark.value is not None)


def _draw_bands(plot: Plot) -> str:
    height = _TOP + _BAND * len(plot.lines) + _BOTTOM
    scale = _Scale(plot)
    return _framed(plot, height, _bands(plot, scale, height), "")


def _bands(plot: Plot, scale: "_Scale", height: int) -> Iterator[str]:
    yield from _times(scale, height)
    floors = [_TOP + _BAND * (place + 1) - 4 for place in range(len(plot.lines))]
    for line, floor in zip(plot.lines, floors, strict=True):
        yield from _band(line, scale, floor)
    yield from _bars(plot, scale, height)
    for line, floor in zip(plot.lines, floors, strict=True):
        yield f'<text class="tick haloed" x="{_LEFT}" y="{floor - _BAND + 17}">{line.label}{line.note}</text>'


def _band(line: Line, scale: "_Scale", floor: int) -> Iterator[str]:
    """Yield one line as an area above its floor."""
    room = _BAND - 22
    points = [
        (scale.x(seconds), floor - room * min(max(value / scale.top, 0.0), 1.0)) for seconds, value in line.points
    ]
    if points:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(points[0][0], floor), *points, (points[-1][0], floor)])
        yield f'<polygon class="area {line.style}" points="{path}"><title>{line.label}</title></polygon>'
    yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'


def _framed(plot: Plot, height: int, drawn: Iterator[str], legend: str) -> str:
    title, about = f"plot{plot.number}-title", f"plot{plot.number}-about"
    return "\n".join(
        [
            f"<figure><figcaption>{plot.title}</figcaption>",
            f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{title} {about}">',
            f'<title id="{title}">{plot.title}</title><desc id="{about}">{plot.about}</desc>',
            *drawn,
            "</svg>",
            legend,
            "</figure>",
        ]
    )


class _Scale:
    """From seconds and values to places in the picture."""

    def __init__(self, plot: Plot) -> None:
        self.end = plot.end or 1.0
        values = [value for line in plot.lines for _, value in line.points]
        values += [mark.value for mark in plot.marks if mark.value is not None]
        most = max(values, default=0.0)
        self.step = max(_nice(min(most, plot.top or math.inf) or 1.0), 1.0 if plot.counts else 0.0)
        self.top = plot.top if plot.top is not None and most > plot.top else self.step * math.ceil(most / self.step)
        self.top = self.top or self.step

    def x(self, seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(seconds / self.end, 0.0), 1.0)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(max(value / self.top, 0.0), 1.0)


def _nice(most: float) -> float:
    """Return the distance of marks on an axis: 1, 2 or 5 times a power of ten."""
    rough = most / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * 0.999)


def _nice_time(end: float) -> float:
    if end < _TICKS:
        return _nice(end)
    return next((step for step in _TIME_STEPS if step >= end / 6), 86_400 * math.ceil(end / 6 / 86_400))


def _values(plot: Plot, scale: _Scale) -> Iterator[str]:
    for tick in range(int(scale.top / scale.step * 1.001) + 1):
        value = tick * scale.step
        y = scale.y(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{plot.unit(value)}</text>'


def _times(scale: _Scale, height: int) -> Iterator[str]:
    step = _nice_time(scale.end)
    for tick in range(int(scale.end / step * 1.001) + 1):
        x = scale.x(tick * step)
        text = seconds_text(round(tick * step, 6)) if tick else "0"
        anchor = "end" if x > _WIDTH - _RIGHT - 12 else "middle"
        yield f'<text class="tick" x="{x:.1f}" y="{height - _BOTTOM + 18}" text-anchor="{anchor}">{text}</text>'


def _line(line: Line, scale: _Scale) -> Iterator[str]:
    for piece in _pieces(line.points, math.inf if line.whole else _GAP * scale.end):
        points = list(_stepped(piece)) if line.stepped else piece
        if len(points) == 1:
            points = [points[0], points[0]]  # a round cap makes a dot of it
        path = " ".join(f"{scale.x(seconds):.1f},{scale.y(value):.1f}" for seconds, value in points)
        yield f'<polyline class="line {line.style}" points="{path}"><title>{line.label}</title></polyline>'


def _pieces(points: Sequence[tuple[float, float]], gap: float) -> Iterator[list[tuple[float, float]]]:
    piece: list[tuple[float, float]] = []
    for point in points:
        if piece and point[0] - piece[-1][0] > gap:
            yield piece
            piece = []
        piece.append(point)
    if piece:
        yield piece


def _stepped(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    before: float | None = None
    for seconds, value in points:
        if before is not None and before != value:
            yield seconds, before
        yield seconds, value
        before = value


def _bars(plot: Plot, scale: _Scale, height: int) -> Iterator[str]:
    """Yield the marks from bottom to top; a word that would be written over the one before is left to the tooltip."""
    worded = -math.inf
    for mark in plot.marks:
        if mark.value is None:
            x = scale.x(mark.seconds)
            # Near the right edge a word stands on the other side, where the one before may be.
            with_word = not plot.banded and x - worded >= (2 * _WORD if x > _FLIP else _WORD)
            worded = x if with_word else worded
            yield _bar(mark, x, height, with_word)


def _bar(mark: Mark, x: float, height: int, with_word: bool) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"'
    beside, anchor = (x - 4, "end") if x > _FLIP else (x + 4, "start")
    place = f'x="{beside:.1f}" y="{_TOP + 9}" text-anchor="{anchor}"'
    word = f'<text class="word {mark.style}" {place}>{mark.word}</text>' if with_word else ""
    # The wide invisible line is what a pointer or a finger hits.
    return f'<g><title>{mark.label}</title><line class="hit" {ends}/><line class="bar {mark.style}" {ends}/>{word}</g>'


def _dot(mark: Mark, scale: _Scale) -> str:
    assert mark.value is not None
    place = f'cx="{scale.x(mark.seconds):.1f}" cy="{scale.y(mark.value):.1f}"'
    return f'<circle class="dot {mark.style}" {place} r="3"><title>{mark.label}</title></circle>'


def _legend(plot: Plot) -> str:
    entries = [f'<li><span class="swatch {line.style}"></span>{line.label}</li>' for line in plot.lines]
    if plot.dots is not None and any(mark.value is not None for mark in plot.marks):
        entries.append(f'<li><span class="blob {plot.dots[1]}"></span>{plot.dots[0]}</li>')
    return f'<ul class="legend">{"".join(entries)}</ul>'
