"""What was measured, as a table, as JSON and as bars."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from tests.benchmarks.contest import Goal, Measured, Peer, Workload, best
from tests.benchmarks.turns import Outcome

__all__ = ("as_data", "bars", "goals", "lines")

_HEADS = ("", "records/s", "x first", "x by CPU", "CPU ns", "spread", "peak MB", "of ideal")
_ROW, _NAME, _LONGEST = 18, 260, 380


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield the lines of a workload's table and its goals."""
    workload = outcome.workload
    yield f"{workload.name}: {workload.title} ({outcome.records:,} records)"
    rows = [_HEADS, *_rows(outcome)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
    for row in rows:
        yield (
            "  "
            + "  ".join(
                text.rjust(width) if place else text.ljust(width)
                for place, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )
    yield from (f"  {name}: skipped, {reason}" for name, reason in outcome.skipped.items())
    yield from (f"  {name}: WRONG, {reason}" for name, reason in outcome.wrong.items())
    answers = {runs[0].answer for runs in outcome.results.values()}
    yield "  verified: " + ", ".join(f"{count:,} records, checksum {text}" for count, text in sorted(answers))
    for goal, figure in goals(outcome):
        yield f"  goal {goal.text}: {figure:.3g} (reach {goal.reach:g}, floor {goal.floor:g}): {goal.verdict(figure)}"


def goals(outcome: Outcome) -> Iterator[tuple[Goal, float]]:
    """Yield those goals of which all peers ran, and the figure reached."""
    for goal in outcome.workload.goals:
        try:
            yield goal, goal.figure(outcome.results, outcome.records)
        except KeyError:  # of a peer that was skipped
            continue


def as_data(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as values of JSON."""
    return {
        "workload": outcome.workload.name,
        "title": outcome.workload.title,
        "records": outcome.records,
        "peers": {
            name: [
                {
                    "seconds": run.seconds,
                    "processor_seconds": run.processor,
                    "peak_mb": run.peak,
                    "count": run.answer[0],
                    "checksum": run.answer[1],
                }
                for run in runs
            ]
            for name, runs in outcome.results.items()
        },
        "skipped": outcome.skipped,
        "wrong": outcome.wrong,
        "goals": [
            {"goal": goal.text, "figure": figure, "reach": goal.reach, "floor": goal.floor, "is": goal.verdict(figure)}
            for goal, figure in goals(outcome)
        ],
    }


def bars(outcomes: Sequence[Outcome]) -> str:
    """Return bars of records a second as SVG, those of a workload on one scale."""
    pieces: list[str] = []
    top = 10
    for outcome in outcomes:
        top += 22
        pieces.append(f'<text x="10" y="{top}" class="title">{escape(_title(outcome.workload))}</text>')
        rates = {peer.name: _rate(peer, outcome) for peer in _ran(outcome)}
        for name, rate in rates.items():
            top += _ROW
            pieces.append(_bar(name, rate, max(rates.values()), top))
    style = "text{font:12px sans-serif}.title{font-weight:bold}.ours{fill:#0b7285}.other{fill:#adb5bd}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_NAME + _LONGEST + 90}" height="{top + 16}" role="img">'
        f"<title>Records a second</title><style>{style}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(pieces)}</svg>\n'
    )


def _bar(name: str, rate: float, most: float, top: int) -> str:
    width = max(1.0, rate / most * _LONGEST)
    style = "ours" if name.startswith(("ours", "adaptive")) else "other"
    return (
        f'<text x="{_NAME - 8}" y="{top}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{style}" x="{_NAME}" y="{top - 11}" width="{width:.1f}" height="13"/>'
        f'<text x="{_NAME + width + 6:.1f}" y="{top}">{rate:,.0f}</text>'
    )


def _title(workload: Workload) -> str:
    return f"{workload.name}: {workload.title}, records a second"


def _ran(outcome: Outcome) -> list[Peer]:
    return [peer for peer in outcome.workload.peers if peer.name in outcome.results]


def _rate(peer: Peer, outcome: Outcome) -> float:
    return outcome.records * peer.times / best(outcome.results[peer.name])


def _rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    ran = _ran(outcome)
    for peer in ran:
        runs, records = outcome.results[peer.name], outcome.records * peer.times
        fastest, busy = best(runs), best(runs, processor=True)
        first = outcome.results[ran[0].name]
        share = outcome.records * ran[0].times
        yield (
            peer.name,
            f"{records / fastest:,.0f}",
            f"{best(first) / share / fastest * records:.2f}",
            f"{best(first, processor=True) / share / busy * records:.2f}" if busy else "",
            f"{busy / records * 1e9:,.0f}",
            f"{_spread(runs):.0%}",
            f"{max(run.peak for run in runs):.0f}",
            f"{peer.ideal(records) / fastest:.2f}" if peer.ideal else "",
        )


def _spread(runs: Sequence[Measured]) -> float:
    seconds = [run.seconds for run in runs]
    return max(seconds) / min(seconds) - 1
