"""Changing the state file of a config: back to an older checkpoint, or clear."""

import asyncio
from collections.abc import Iterator

import click

from pipeline.cli.config import ConfigFile
from pipeline.cli.saved import say_lines, sink_place, state_path
from pipeline.cli.say import err, number, out
from pipeline.errors import ConfigError, StateError
from pipeline.plan.load import Loaded
from pipeline.settle.cut import Cut, SavedCut
from pipeline.settle.state import edit_state
from pipeline.stage import Resume, Sink

__all__ = ("clear_state", "confirmed", "rewind_state")


def rewind_state(config: ConfigFile, to: int, *, repeat: bool) -> None:
    """Make an older checkpoint the current one and say what follows from it.

    :raises LockedError: when a run holds the state.
    :raises StateError: when there is no such checkpoint, or a sink can't be taken back and ``repeat`` isn't given.
    """
    loaded = config.load()
    path = state_path(config, loaded)
    if not repeat and (kept := _keepers(loaded)):
        raise StateError(
            f"{path}: can't go back: {', '.join(kept)} keeps its rows, and the records since would be written again; "
            "--repeat accepts that"
        )

    async def edit() -> tuple[Cut | None, SavedCut]:
        async with edit_state(path, pipeline=loaded.config.name) as state:
            before = state.cut
            return before, await state.rewind(to)

    before, found = asyncio.run(edit())
    say_lines(loaded, _lines(before, found))
    out(f"the next run does it: {config.command('run', *(['--repeat'] if repeat else []))}")


def clear_state(config: ConfigFile, *, yes: bool) -> None:
    """Forget where the pipeline stands, after asking.

    :raises ConfigError: when nobody is there to answer.
    :raises LockedError: when a run holds the state.
    """
    loaded = config.load()
    path = state_path(config, loaded)
    if not yes and not confirmed(f"{path}: forget where pipeline '{loaded.config.name}' stands?"):
        err("nothing was changed")
        raise click.Abort

    async def edit() -> None:
        async with edit_state(path, pipeline=loaded.config.name) as state:
            await state.clear()

    asyncio.run(edit())
    out(f"{path}: cleared; the next run begins a new lineage. Dead letters and history are kept.")


def confirmed(question: str) -> bool:
    """Ask on the terminal.

    :raises ConfigError: when nobody is there to answer.
    """
    try:
        return click.confirm(question, err=True)
    except (click.Abort, OSError):
        err("")
        raise ConfigError("there was no answer on standard input, so nothing was changed; use --yes") from None


def _keepers(loaded: Loaded) -> list[str]:
    return [
        f"sink '{sink.name}' ({sink.kind})"
        for sink in loaded.topology.sinks
        if isinstance(sink.spec, Sink) and sink.spec.resumes() in (Resume.TRANSACTION, Resume.UPSERT)
    ]


def _lines(before: Cut | None, found: SavedCut) -> Iterator[str]:
    yield f"back at checkpoint {found.id}"
    for name, point in found.sources.items():
        since = before.sources.get(name) if before is not None else None
        again = f"; {number(since.number - point.number)} are read again" if since is not None else ""
        yield f"source {name}: {number(point.number)} records settled{again}"
    for name, sink in found.sinks.items():
        if isinstance(sink.position, str):
            yield f"sink {name}: keeps what it has, and its own account of it, {sink_place(sink.position)}"
        else:
            yield f"sink {name}: is cut back to {sink_place(sink.position)}; parts named since are removed"
