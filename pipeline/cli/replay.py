"""Replaying the dead letters of a config."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.cli.config import ConfigFile
from pipeline.cli.exported import Corrected, read_corrected
from pipeline.cli.running import Request, execute
from pipeline.cli.saved import looked_at, say_lines, state_path
from pipeline.cli.say import err, number
from pipeline.cli.signals import Signals
from pipeline.flow.entries import Entries, Replay, entries_of
from pipeline.plan.load import Loaded
from pipeline.settle.letters import Wanted
from pipeline.settle.view import StateView

__all__ = ("Asked", "replay_them")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be replayed, as on the command line; ``corrected`` is the file of corrected records."""

    wanted: Wanted
    enter_at: str | None
    corrected: str | None
    force: bool


def replay_them(
    config: ConfigFile, asked: Asked, signals: Signals, *, dry_run: bool, log: str | None, fail_on_dlq: bool
) -> int:
    """Replay letters and return the exit code; or say what would be replayed.

    :raises ConfigError: when the config, the file of corrected records, or the stage to enter at is wrong.
    :raises StateError: when there is no state file.
    """
    found = read_corrected(asked.corrected) if asked.corrected is not None else None
    replay = _replay(asked, found)
    loaded = config.load()
    state_path(config, loaded)
    entries = _look(config, loaded, replay)
    if dry_run:
        say_lines(loaded, _plan_lines(entries))
        return 0
    _tell_missing(entries, replay)
    return execute(Request(config, log=log, fail_on_dlq=fail_on_dlq, replay=replay), signals)


def _replay(asked: Asked, found: Corrected | None) -> Replay:
    if found is None:
        return Replay(asked.wanted, asked.enter_at, force=asked.force)
    return Replay(asked.wanted, asked.enter_at, found.records, found.keys, asked.force)


def _look(config: ConfigFile, loaded: Loaded, replay: Replay) -> Entries:
    async def look(view: StateView) -> Entries:
        return entries_of(await view.letter_outlines(replay.wanted), loaded.topology, replay)

    return looked_at(config, loaded, look)


def _tell_missing(entries: Entries, replay: Replay) -> None:
    """Name letters that were asked for by their ids and aren't there: a replay before this one may have ended them."""
    asked = set(replay.wanted.ids or replay.corrected or ())
    missing = sorted(asked - entries.places.keys() - entries.left.keys())
    if missing:
        more = f" and {number(len(missing) - 10)} more" if len(missing) > 10 else ""
        err(f"not among the dead letters (any more): {', '.join(map(str, missing[:10]))}{more}")


def _plan_lines(entries: Entries) -> Iterator[str]:
    yield f"{number(len(entries.places))} would be replayed"
    for place, count in entries.counts().items():
        yield f"  at {place}: {number(count)}"
    for letter, reason in list(entries.left.items())[:20]:
        yield f"  dead letter {letter} would be left: {reason}"
    if len(entries.left) > 20:
        yield f"  … and {number(len(entries.left) - 20)} more would be left"
