"""A plan to look at: as text, as Mermaid, as SVG."""

from collections.abc import Iterator, Mapping
from html import escape

from pipeline.plan.topology import PlannedStage, Topology
from pipeline.stage import Sink
from pipeline.units import format_size

__all__ = ("to_mermaid", "to_svg", "to_text")


def to_text(topology: Topology) -> str:
    """Return the plan in words: stages in the order of the data, worst-case memory, and what each sink promises."""
    return "\n".join((*_heading(topology), "", *_stages(topology), "", *_memory(topology), "", *_promises(topology)))


def to_mermaid(topology: Topology) -> str:
    """Return the plan as a Mermaid flowchart."""
    numbers = {name: f"s{index}" for index, name in enumerate(topology.stages)}
    lines = ["flowchart LR"]
    for stage in topology.stages.values():
        opening, closing = _SHAPES[stage.role]
        text = "<br/>".join(_mermaid_text(line) for line in _caption(stage))
        lines.append(f'    {numbers[stage.name]}{opening}"{text}"{closing}')
    for source, target in _edges(topology):
        label = _condition(target)
        arrow = f'-->|"{_mermaid_text(label)}"|' if label else "-->"
        lines.append(f"    {numbers[source.name]} {arrow} {numbers[target.name]}")
    return "\n".join(lines)


def to_svg(topology: Topology) -> str:
    """Return the plan as a self-contained SVG picture: data flows from left to right."""
    places = _layout(topology)
    width = max(x for x, _ in places.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + _HEIGHT + _MARGIN
    body = [*_svg_edges(topology, places), *_svg_stages(topology, places)]
    title = escape(_printable(topology.name))
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="Pipeline {title}" font-family="system-ui, sans-serif">',
            f"<title>{title}</title>",
            _SVG_ARROW,
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *body,
            "</svg>",
        )
    )


# --- text -------------------------------------------------------------------------------------------------------------


def _heading(topology: Topology) -> Iterator[str]:
    yield f"pipeline {topology.name}"
    yield f"state: {topology.checkpoint_path or 'none, every run starts anew'}"


def _stages(topology: Topology) -> Iterator[str]:
    width = max(len(stage.role) for stage in topology.stages.values())
    names = max(len(_named(stage)) for stage in topology.stages.values())
    for stage in topology.stages.values():
        notes = [f"<- {', '.join(stage.inputs)}"] if stage.inputs else []
        notes += [f"when {label}"] if (label := _condition(stage)) else []
        notes += _engine_notes(topology, stage)
        yield f"  {stage.role:<{width}}  {_named(stage):<{names}}  {'; '.join(notes)}".rstrip()


def _engine_notes(topology: Topology, stage: PlannedStage) -> Iterator[str]:
    concurrency = getattr(stage.spec, "concurrency", 1)
    if concurrency > 1:
        yield f"concurrency {concurrency}" + ("" if getattr(stage.spec, "ordered", True) else ", unordered")
    if (policy := topology.policy_of(stage.name)) != "stop":
        yield f"on failure {policy}"


def _memory(topology: Topology) -> Iterator[str]:
    memory = topology.memory()
    yield f"memory: at most {format_size(memory.total)}"
    for what, count in memory.parts:
        yield f"  {format_size(count):>9}  {what}"


def _promises(topology: Topology) -> Iterator[str]:
    yield "guarantees:"
    for name, guarantee in topology.guarantees().items():
        yield f"  {name}: {guarantee.text}"
        yield from (f"    {reason}" for reason in guarantee.why)


def _named(stage: PlannedStage) -> str:
    return stage.name if stage.name == stage.kind else f"{stage.name} ({stage.kind})"


# --- what the pictures share ------------------------------------------------------------------------------------------


def _edges(topology: Topology) -> Iterator[tuple[PlannedStage, PlannedStage]]:
    for stage in topology.stages.values():
        for name in stage.inputs:
            yield topology.stages[name], stage


def _caption(stage: PlannedStage) -> tuple[str, str]:
    return stage.name, f"{stage.role} {stage.kind}"


def _condition(stage: PlannedStage) -> str:
    when = getattr(stage.spec, "when", None)
    if when is None or isinstance(when, str):
        return when or ""
    return str(getattr(when, "__name__", "a function"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _shortened(text: str, length: int) -> str:
    text = _printable(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


# --- Mermaid ----------------------------------------------------------------------------------------------------------

_SHAPES: Mapping[str, tuple[str, str]] = {
    "source": ("([", "])"),
    "batcher": ("[[", "]]"),
    "processor": ("[", "]"),
    "sink": ("[(", ")]"),
}


def _mermaid_text(text: str) -> str:
    # Mermaid knows entities by number; anything else could end the text or begin a tag.
    return "".join(c if c.isalnum() or c in " _-.,/()" else f"#{ord(c)};" for c in _printable(text))


# --- SVG --------------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 64, 70, 34, 24
_COLOURS: Mapping[str, tuple[str, str]] = {
    "source": ("#e3f2e6", "#2e7d43"),
    "batcher": ("#fdf1dc", "#a86a00"),
    "processor": ("#e6eefb", "#2a5db0"),
    "sink": ("#f1e7f7", "#7a3b9a"),
}
_SVG_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L10 5L0 10z" fill="#555555"/></marker></defs>'
)


def _layout(topology: Topology) -> dict[str, tuple[int, int]]:
    """Return the place of each stage: a column behind its last input, in a row beside that input if it is free."""
    column: dict[str, int] = {}
    rows: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for stage in topology.stages.values():
        at = 1 + max((column[name] for name in stage.inputs), default=-1)
        row = min((rows[name] for name in stage.inputs), default=0)
        while (at, row) in taken:
            row += 1
        column[stage.name], rows[stage.name] = at, row
        taken.add((at, row))
    return {
        name: (_MARGIN + column[name] * (_WIDTH + _GAP_X), _MARGIN + rows[name] * (_HEIGHT + _GAP_Y)) for name in column
    }


def _svg_edges(topology: Topology, places: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for source, target in _edges(topology):
        (x1, y1), (x2, y2) = places[source.name], places[target.name]
        x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
        line = f"M{x1} {y1}"
        if x2 - x1 > _GAP_X:  # past other stages, in the lane below the row it comes from
            lane = y1 + (_HEIGHT + _GAP_Y) // 2
            line += _curve(x1, y1, x1 + _GAP_X, lane) + f"H{x2 - _GAP_X}"
            x1, y1 = x2 - _GAP_X, lane
        line += _curve(x1, y1, x2 - 2, y2)
        yield f'<path d="{line}" fill="none" stroke="#555555" stroke-width="1.5" marker-end="url(#arrow)"/>'


def _curve(x1: int, y1: int, x2: int, y2: int) -> str:
    return f"C{x1 + 45} {y1} {x2 - 45} {y2} {x2} {y2}"


def _svg_stages(topology: Topology, places: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for stage in topology.stages.values():
        x, y = places[stage.name]
        fill, stroke = _COLOURS[stage.role]
        yield f"<g><title>{escape(_printable(f'{stage.title} ({stage.kind})'))}</title>"
        yield (
            f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" stroke="{stroke}" '
            'stroke-width="1.5"/>'
        )
        for index, line in enumerate(_lines(topology, stage)):
            size, weight, colour = ((14, 600, "#1b1b1b"), (11, 400, stroke), (11, 400, "#555555"))[index]
            yield (
                f'<text x="{x + 12}" y="{y + 22 + 17 * index}" font-size="{size}" font-weight="{weight}" '
                f'fill="{colour}">{escape(_shortened(line, 22 if index == 0 else 27))}</text>'
            )
        yield "</g>"


def _lines(topology: Topology, stage: PlannedStage) -> Iterator[str]:
    yield from _caption(stage)
    if condition := _condition(stage):
        yield f"when {condition}"
    elif isinstance(stage.spec, Sink):
        yield topology.guarantees()[stage.name].text.partition(":")[0]
