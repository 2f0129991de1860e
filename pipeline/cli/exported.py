"""Dead letters in a file: one a line as JSON, written by ``dlq export`` and read back by ``dlq replay --file``."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from pipeline.cli.config import ConfigFile, refuse_config
from pipeline.cli.saved import looked_at, state_path
from pipeline.cli.say import err, number, out
from pipeline.errors import ConfigError, Problem, StorageError
from pipeline.plan.load import Loaded
from pipeline.settle.cut import Letter
from pipeline.settle.letters import Wanted, plain
from pipeline.settle.view import StateView, open_view

__all__ = ("Corrected", "export_them", "read_corrected")

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Corrected:
    """What a file has: records by the ids of their letters, and the keys of those letters."""

    records: dict[int, Any] = field(default_factory=dict[int, Any])
    keys: dict[int, str] = field(default_factory=dict[int, str])


def export_them(config: ConfigFile, wanted: Wanted, output: str) -> None:
    """Write the letters that are wanted, the oldest first. Records are written as they are, all else without secrets.

    :raises StorageError: when they can't be written; a file of that name is then as it was.
    """
    loaded = config.load()
    path = state_path(config, loaded)

    async def nothing(view: StateView) -> None:
        pass

    looked_at(config, loaded, nothing)
    if output == "-":
        asyncio.run(_write(path, loaded, wanted, None))
        return
    refuse_config(config.path, output, "-o")
    temporary = Path(f"{output}.{os.getpid()}.new")
    try:
        # The records may be nobody else's business.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            count = asyncio.run(_write(path, loaded, wanted, file))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, output)
    except OSError as error:
        raise StorageError(f"-o {output}: can't be written: {os.strerror(error.errno or 0)}") from None
    finally:
        temporary.unlink(missing_ok=True)
    err(f"{number(count)} exported to {output}; correct them, then: {config.command('dlq', 'replay')} --file {output}")


def read_corrected(path: str) -> Corrected:
    """Read corrected records; ``-`` is standard input.

    :raises ConfigError: for a file that can't be read, and for each line that is no letter.
    """
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        raise ConfigError(f"--file {path}: can't be read: {os.strerror(error.errno or 0)}") from None
    found, problems = Corrected(), list[Problem]()
    for place, line in enumerate(lines, 1):
        if line.strip():
            problems += [Problem(path, place, 0, text) for text in _take(line, found)]
    if problems:
        raise ConfigError(*problems)
    return found


def _take(line: bytes, found: Corrected) -> Iterator[str]:
    """Take one line in, or yield what is wrong with it."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        yield f"not JSON: {error}"
        return
    letter = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    identity, key = letter.get("id"), letter.get("key", "")
    if not isinstance(identity, int) or isinstance(identity, bool) or "record" not in letter:
        yield "expected a letter as `dlq export` writes it, with its 'id' and 'record'"
    elif identity in found.records:
        yield f"letter {identity} is here twice"
    else:
        found.records[identity] = letter["record"]
        if isinstance(key, str) and key:
            found.keys[identity] = key


async def _write(path: Path, loaded: Loaded, wanted: Wanted, file: IO[str] | None) -> int:
    count = after = 0
    async with open_view(path) as view:
        while letters := await view.letters(wanted, _PAGE, after):
            lines = "\n".join(_line(letter, loaded) for letter in letters)
            if file is None:
                out(lines)
            else:
                file.write(lines + "\n")
            count += len(letters)
            after = letters[-1].id or 0
    return count


def _line(letter: Letter, loaded: Loaded) -> str:
    values = plain(letter)
    mask = loaded.secrets.mask
    values |= {name: mask(value) for name, value in values.items() if name != "record" and isinstance(value, str)}
    return json.dumps(values)
