"""Dead letters of a config, told."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from pipeline.cause import with_kind
from pipeline.cli.config import ConfigFile
from pipeline.cli.saved import looked_at, say_lines, write_json
from pipeline.cli.say import ago, clock_time, err, number, out, table
from pipeline.errors import ConfigError
from pipeline.settle.cut import Letter
from pipeline.settle.view import StateView
from pipeline.units import parse_duration
from pipeline.watch.log import masked

__all__ = ("Wanted", "list_them", "moment_of", "show_one")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are asked for, as on the command line."""

    stage: str | None = None
    error: str | None = None
    since: str | None = None
    until: str | None = None


def list_them(config: ConfigFile, wanted: Wanted, limit: int, as_json: bool) -> None:
    """List the letters that are wanted, the oldest first."""
    since, until = (None if text is None else moment_of(text) for text in (wanted.since, wanted.until))
    loaded = config.load()

    async def look(view: StateView) -> tuple[int, list[Letter]]:
        count = await view.count_letters(wanted.stage, wanted.error, since, until)
        return count, await view.letters(wanted.stage, wanted.error, since, until, limit)

    count, letters = looked_at(config, loaded, look)
    if as_json:
        for letter in letters:
            out(json.dumps(masked(msgspec.to_builtins(letter, enc_hook=str), loaded.secrets.mask)))
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
        write_json(loaded, letter)
    else:
        say_lines(loaded, _page(letter))


def moment_of(text: str) -> float:
    """Return the seconds since 1970 of a date, a date and time (local unless it says its zone), or a time ago.

    :raises ConfigError: for anything else.
    """
    try:
        if re.fullmatch(r"[\d.]+ ?[a-z]+", text):
            return time.time() - parse_duration(text)
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"'{text}' is no moment; expected 2026-03-01, 2026-03-01T12:30, or a time ago like 2h"
        ) from None


def _page(letter: Letter) -> Iterator[str]:
    yield f"dead letter {letter.id}, {ago(letter.at)}"
    yield f"stage: {letter.stage}"
    yield f"error: {_one_line([_error(letter)])[0]}"
    yield f"attempts: {letter.attempts}" + (f", replayed {letter.replays} times" if letter.replays else "")
    yield f"position: {letter.position}"
    child = f", child {letter.child}" if letter.child else ""
    yield f"origin: source {letter.source}, number {letter.number}{child}"
    yield f"key: {letter.key}"
    yield f"lineage: {letter.lineage}, run {letter.run}"
    if letter.metadata:
        yield f"metadata: {json.dumps(letter.metadata, ensure_ascii=False, default=str)}"
    yield "record (as text; it can't be replayed):" if letter.shown else "record:"
    yield json.dumps(letter.record, indent=2, ensure_ascii=False, default=str)


def _error(letter: Letter) -> str:
    return with_kind(letter.error_type, letter.error)


def _one_line(cells: tuple[str, ...] | list[str]) -> list[str]:
    return [cell.replace("\n", " ↵ ") for cell in cells]
