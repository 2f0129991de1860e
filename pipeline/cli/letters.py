"""Dead letters of a config, told."""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from pipeline.cause import with_kind
from pipeline.cli.config import ConfigFile
from pipeline.cli.editing import confirmed
from pipeline.cli.saved import looked_at, say_lines, state_path, write_json
from pipeline.cli.say import ago, clock_time, err, number, out, table
from pipeline.errors import ConfigError
from pipeline.settle.cut import Letter
from pipeline.settle.letters import Wanted, plain
from pipeline.settle.state import edit_state
from pipeline.settle.view import StateView
from pipeline.units import parse_duration
from pipeline.watch.log import masked

__all__ = ("list_them", "moment_of", "purge_them", "show_one", "wanted_of")


def wanted_of(stage: str | None, error: str | None, since: str | None, until: str | None, ids: Sequence[int]) -> Wanted:
    """Return which letters are asked for on the command line.

    :raises ConfigError: for a moment that is none.
    """
    after = None if since is None else moment_of(since, "--since ")
    before = None if until is None else moment_of(until, "--until ")
    return Wanted(stage=stage, error=error, since=after, until=before, ids=ids or None)


def list_them(config: ConfigFile, wanted: Wanted, limit: int, as_json: bool) -> None:
    """List the letters that are wanted, the oldest first."""
    loaded = config.load()

    async def look(view: StateView) -> tuple[int, list[Letter]]:
        return await view.count_letters(wanted), await view.letters(wanted, limit)

    count, letters = looked_at(config, loaded, look)
    if as_json:
        for letter in letters:
            out(json.dumps(masked(plain(letter), loaded.secrets.mask)))
    elif letters:
        rows = [(str(each.id), clock_time(each.at), each.stage, each.position, _error(each)) for each in letters]
        say_lines(loaded, iter([table(("id", "at", "stage", "position", "error"), map(_one_line, rows))]))
    if count > len(letters):
        err(f"{number(len(letters))} of {number(count)} shown; --limit shows more")
    elif not letters:
        err("no dead letters" if wanted == Wanted() else "no dead letters like that")


def show_one(config: ConfigFile, identity: int, as_json: bool) -> None:
    """Show one letter whole.

    :raises ConfigError: when there is none of this id.
    """
    loaded = config.load()

    async def look(view: StateView) -> Letter | None:
        return await view.letter(identity)

    letter = looked_at(config, loaded, look)
    if letter is None:
        raise ConfigError(f"no dead letter {identity}; {config.command('dlq', 'list')} shows those there are")
    if as_json:
        write_json(loaded, plain(letter))
    else:
        say_lines(loaded, _page(letter))


def purge_them(config: ConfigFile, wanted: Wanted, *, yes: bool) -> None:
    """Delete the letters that are wanted, after asking.

    :raises ConfigError: when nobody is there to answer.
    :raises LockedError: when a run holds the state.
    """
    loaded = config.load()
    path = state_path(config, loaded)

    async def look(view: StateView) -> int:
        return await view.count_letters(wanted)

    count = looked_at(config, loaded, look)
    if not count:
        err("no dead letters" if wanted == Wanted() else "no dead letters like that")
        return
    letters = f"{number(count)} dead letter{'s' if count > 1 else ''}"
    if not yes and not confirmed(f"{path}: delete {letters} for good?"):
        err("nothing was deleted")
        raise click.Abort

    async def edit() -> int:
        async with edit_state(path, pipeline=loaded.config.name) as state:
            return await state.purge_letters(wanted)

    out(f"{number(asyncio.run(edit()))} deleted")


def moment_of(text: str, option: str = "") -> float:
    """Return the seconds since 1970 of a date, a date and time (local unless it says its zone), or a time ago.

    :raises ConfigError: for anything else.
    """
    try:
        if re.fullmatch(r"[\d.]+ ?[a-z]+", text):
            return time.time() - parse_duration(text)
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option}'{text}' is no moment; expected 2026-03-01, 2026-03-01T12:30, or a time ago like 2h"
        ) from None


def _page(letter: Letter) -> Iterator[str]:
    yield f"dead letter {letter.id}, {ago(letter.at)}"
    yield f"stage: {letter.stage}"
    yield f"error: {_one_line([_error(letter)])[0]}"
    yield f"attempts: {letter.attempts}" + (f", replayed {_times(letter.replays)}" if letter.replays else "")
    yield f"position: {letter.position}"
    child = f", child {letter.child}" if letter.child else ""
    yield f"origin: source {letter.source}, number {letter.number}{child}"
    yield f"key: {letter.key}"
    yield f"lineage: {letter.lineage}, run {letter.run}"
    if letter.metadata:
        yield f"metadata: {json.dumps(letter.metadata, ensure_ascii=False, default=str)}"
    yield "record (as text; it can't be replayed):" if letter.shown else "record:"
    yield json.dumps(letter.record, indent=2, ensure_ascii=False, default=str)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _error(letter: Letter) -> str:
    return with_kind(letter.error_type, letter.error)


def _one_line(cells: tuple[str, ...] | list[str]) -> list[str]:
    return [cell.replace("\n", " ↵ ") for cell in cells]
