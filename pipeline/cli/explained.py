"""A run of the state's history, explained on standard output."""

from collections.abc import Iterator
from typing import Any

from pipeline.cli.config import ConfigFile
from pipeline.cli.saved import looked_at, say_lines, write_json
from pipeline.cli.say import ago, number
from pipeline.errors import StateError
from pipeline.settle.cut import SavedCut, SavedRun
from pipeline.settle.view import StateView
from pipeline.watch.explain import explain
from pipeline.watch.story import Story, story_of
from pipeline.watch.words import seconds_text

__all__ = ("explain_run",)

_RUNS = 1000
"""All that a state file keeps."""


def explain_run(config: ConfigFile, wanted: int | None, *, as_json: bool) -> None:
    """Explain the run of this number, or the last one.

    :raises StateError: when there is no state, or no such run in it.
    """
    loaded = config.load()

    async def look(view: StateView) -> tuple[list[SavedRun], list[SavedCut]]:
        return await view.runs(limit=_RUNS), await view.cuts(limit=_RUNS)

    runs, cuts = looked_at(config, loaded, look)
    chosen = _choose(runs, wanted)
    known = _story(loaded.config.name, chosen)
    before = next((story for run in runs if (story := _story(loaded.config.name, run))), None) if not wanted else None
    if as_json:
        write_json(loaded, _data(chosen, known))
    else:
        say_lines(loaded, _lines(chosen, known, before, cuts))


def _choose(runs: list[SavedRun], wanted: int | None) -> SavedRun:
    if not runs:
        raise StateError("nothing was run yet, so there is nothing to explain")
    if wanted is None:
        return runs[0]
    for run in runs:
        if run.run == wanted:
            return run
    raise StateError(f"there is no run {wanted} in the history; the last one is {runs[0].run}")


def _story(pipeline: str, run: SavedRun) -> Story | None:
    return story_of(pipeline, run.run, run.started, run.outcome or "", run.report)


def _lines(chosen: SavedRun, story: Story | None, before: Story | None, cuts: list[SavedCut]) -> Iterator[str]:
    if story is not None:
        yield from explain(story).lines()
        return
    yield f"run {chosen.run} began {ago(chosen.started)} and was killed, or is under way: it told nothing at its end"
    yield from _checkpointed(chosen, cuts)
    if before is not None:
        yield ""
        yield f"the last run that ended is run {before.run}"
        yield from explain(before).lines()


def _checkpointed(run: SavedRun, cuts: list[SavedCut]) -> Iterator[str]:
    """Yield what the last checkpoint of a run says about it."""
    cut = next((cut for cut in cuts if (cut.lineage, cut.run) == (run.lineage, run.run)), None)
    if cut is None:
        return
    settled = sum(point.number for point in cut.sources.values())
    yield f"its last checkpoint, {ago(cut.taken_at)}: {number(settled)} records settled, all runs together"
    for name, learned in cut.learned.items():
        if learned:
            yield f"batcher '{name}': {_learned(learned)}"


def _learned(learned: Any) -> str:
    try:
        costs = f"{seconds_text(learned['fixed'])} and {seconds_text(learned['per_record'])} a record"
        return f"the limit was {number(learned['limit'])}; a batch took {costs}"
    except (KeyError, TypeError):  # a law of another package keeps what it likes
        return "has learned something that only its own law can read"


def _data(run: SavedRun, story: Story | None) -> dict[str, Any]:
    return {"run": run, "explanation": None if story is None else explain(story)}
