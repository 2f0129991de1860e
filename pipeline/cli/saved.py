"""What is in the state file of a config, told."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pipeline.cli.config import ConfigFile
from pipeline.cli.say import ago, clock_time, number, out, span, table
from pipeline.errors import StateError
from pipeline.plan.load import Loaded
from pipeline.settle.cut import SavedCut, SavedRun, SinkPoint, SourcePoint
from pipeline.settle.letters import LETTERS
from pipeline.settle.partitions import SavedPartition
from pipeline.settle.view import StateView, open_view
from pipeline.watch.log import escape, masked

__all__ = ("looked_at", "say_lines", "show_history", "show_state", "sink_place", "state_path", "write_json")

T = TypeVar("T")


def show_state(config: ConfigFile, as_json: bool) -> None:
    """Show where the next run would go on."""
    loaded = config.load()

    async def look(view: StateView) -> dict[str, Any]:
        return {
            "pipeline": view.pipeline,
            "path": str(state_path(config, loaded)),
            "lineage": view.lineage,
            "run": view.run,
            "runs": await view.runs(limit=1),
            "cuts": await view.cuts(limit=1),
            "dead_letters": await view.count_letters(),
            "partitions": await view.partitions(),
        }

    found = looked_at(config, loaded, look)
    holder = _holder(state_path(config, loaded))
    if as_json:
        cuts: list[SavedCut] = found.pop("cuts")
        parts: list[SavedPartition] = found.pop("partitions")
        found["partitions"] = {"all": len(parts), "done": sum(part.account is not None for part in parts)}
        runs: list[SavedRun] = found.pop("runs")
        write_json(
            loaded,
            {**found, "held_by": holder, "checkpoint": next(iter(cuts), None), "last_run": next(iter(runs), None)},
        )
    else:
        say_lines(loaded, _state_lines(found, holder))


def show_history(config: ConfigFile, limit: int, as_json: bool) -> None:
    """Show runs and checkpoints, the newest first."""
    loaded = config.load()

    async def look(view: StateView) -> tuple[list[SavedRun], list[SavedCut]]:
        return await view.runs(limit=limit), await view.cuts(limit=limit)

    runs, cuts = looked_at(config, loaded, look)
    if as_json:
        write_json(loaded, {"runs": runs, "checkpoints": cuts})
    else:
        say_lines(loaded, _history_lines(runs, cuts))


def looked_at(config: ConfigFile, loaded: Loaded, look: Callable[[StateView], Awaitable[T]]) -> T:
    """Open the state of a config and return what is seen in it.

    :raises StateError: when there is none, or it can't be read.
    """
    path = state_path(config, loaded)

    async def open_and_look() -> T:
        async with open_view(path) as view:
            if view.pipeline != loaded.config.name:
                raise StateError(
                    f"{path}: holds the state of pipeline '{view.pipeline}', not of '{loaded.config.name}'"
                )
            return await look(view)

    return asyncio.run(open_and_look())


def state_path(config: ConfigFile, loaded: Loaded) -> Path:
    """Return the path of a config's state file, which is there.

    :raises StateError: when there is none.
    """
    path = loaded.topology.checkpoint_path
    if path is None:
        raise StateError(f"pipeline '{loaded.config.name}' keeps no state: every run starts anew")
    if not os.path.lexists(path):
        raise StateError(f"{path}: there is no state file here yet; `{config.command('run')}` makes it")
    return Path(path)


def write_json(loaded: Loaded, value: Any) -> None:
    """Write a value as JSON, secrets hidden."""
    out(json.dumps(masked(msgspec.to_builtins(value, enc_hook=str), loaded.secrets.mask), indent=2))


def say_lines(loaded: Loaded, lines: Iterator[str]) -> None:
    """Write lines, secrets hidden and control characters escaped."""
    for text in lines:
        for line in text.split("\n"):
            out(escape(loaded.secrets.mask(line)))


def sink_place(position: Any) -> str:
    """Return a sink's position in words: files and their lengths where it has them."""
    if isinstance(position, str):
        return f"in {position}"
    files = list(_files(position))
    return ", ".join(f"{path} at {number(length)} bytes" for path, length in files) or _short(position)


def _files(position: Any) -> Iterator[tuple[str, int]]:
    if isinstance(position, dict):
        if "path" in position and "length" in position:
            yield str(position["path"]), int(position["length"])  # pyright: ignore[reportUnknownArgumentType]
        else:
            for inner in position.values():  # pyright: ignore[reportUnknownVariableType]
                yield from _files(inner)
    elif isinstance(position, list):
        for inner in position:  # pyright: ignore[reportUnknownVariableType]
            yield from _files(inner)


def _state_lines(found: dict[str, Any], holder: int | None) -> Iterator[str]:
    yield f"pipeline: {found['pipeline']}"
    yield f"state: {found['path']}" + (f", in use by process {holder}" if holder else "")
    if not found["lineage"]:
        yield "nothing is saved: it was cleared, or nothing was run yet"
    else:
        yield f"lineage: {found['lineage']}, run {found['run']}"
    runs: list[SavedRun] = found["runs"]
    if runs:
        yield f"last run: {_run_text(runs[0], holder)}"
    cuts: list[SavedCut] = found["cuts"]
    yield f"checkpoint: {cuts[0].id}, {ago(cuts[0].taken_at)}" if cuts else "checkpoint: none"
    parts: list[SavedPartition] = found["partitions"]
    if parts:
        yield _parts_text(parts)
    for cut in cuts:
        for name, source in _own(cut):
            yield f"source {name}: {_source_text(source)}"
        for name, sink in cut.sinks.items():
            yield f"sink {name}: {_sink_text(sink)}"
    yield f"dead letters: {number(found['dead_letters'])}"


def _parts_text(parts: list[SavedPartition]) -> str:
    left = [part.partition.name for part in parts if part.account is None]
    following = f"; next: {left[0]}" if left else ""
    return f"partitions: {number(len(parts) - len(left))} of {number(len(parts))} done{following}"


def _source_text(point: SourcePoint) -> str:
    settled = sum(high - low for low, high in point.islands)
    beyond = f", {number(settled)} more settled beyond, in {len(point.islands)} islands" if point.islands else ""
    again = f", {point.skip} of them read again and skipped" if point.skip else ""
    return f"{number(point.number)} records settled{beyond}{again}; cursor {_short(point.cursor)}"


def _sink_text(point: SinkPoint) -> str:
    held = "; holds records beyond the frontier" if any(point.held.values()) else ""
    return f"{sink_place(point.position)}{held}"


def _history_lines(runs: list[SavedRun], cuts: list[SavedCut]) -> Iterator[str]:
    rows = [(run.lineage, str(run.run), clock_time(run.started), *_ending(run), _settled(run.report)) for run in runs]
    yield "runs, the newest first"
    yield table(("lineage", "run", "began", "took", "outcome", "settled"), rows) if rows else "none"
    yield ""
    yield "checkpoints of the current lineage, the newest first"
    kept = [(str(cut.id), str(cut.run), clock_time(cut.taken_at), _numbers(cut)) for cut in cuts]
    yield table(("id", "run", "taken", "records settled"), kept) if kept else "none"


def _ending(run: SavedRun) -> tuple[str, str]:
    if run.ended is None:
        return "", "killed, or under way"
    # Which signal it was is known to the command alone; the state has one code for both.
    code = "" if run.outcome == "interrupted" else f" ({run.exit_code})"
    return span(run.ended - run.started), f"{run.outcome}{code}"


def _run_text(run: SavedRun, holder: int | None) -> str:
    took, outcome = _ending(run)
    if not took:
        return f"began {ago(run.started)}, {'under way' if holder else 'killed'}"
    return f"{outcome}, began {ago(run.started)}, took {took}"


def _settled(report: Any) -> str:
    try:
        return number(report["account"]["read"] - report["account"]["unsettled"])
    except (KeyError, TypeError):  # a run that was killed has no report
        return ""


def _numbers(cut: SavedCut) -> str:
    return ", ".join(f"{name} {number(point.number)}" for name, point in _own(cut))


def _own(cut: SavedCut) -> Iterator[tuple[str, SourcePoint]]:
    """Yield the pipeline's own sources: how far replays have come says nothing to people."""
    return ((name, point) for name, point in cut.sources.items() if name != LETTERS)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _holder(path: Path) -> int | None:
    """Return the process that holds the state, as its lock says; a killed one leaves its number behind."""
    try:
        pid = int(path.resolve().with_name(path.name + ".lock").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return pid
