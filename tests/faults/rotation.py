"""A log that is followed while its writer rotates it, and between runs: each line arrives once, or its loss is told."""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from pipeline import Pipeline
from pipeline.errors import PipelineError
from pipeline.flow.supervisor import Supervisor
from stages import batchers, sinks, sources

__all__ = ("rotated",)

_POLL = 0.25
"""Seconds for a follower to have looked once more, by far."""


@dataclass(slots=True)
class _Writer:
    """Writes numbered lines to ``app.log`` and rotates it in some way."""

    folder: Path
    chance: Random
    lines: list[str] = field(default_factory=list[str])
    turns: int = 0

    @property
    def path(self) -> Path:
        """The log."""
        return self.folder / "app.log"

    def write(self) -> None:
        """Append some lines, the last one in two parts at times."""
        with self.path.open("a") as log:
            for _ in range(self.chance.randint(1, 20)):
                line = f"{len(self.lines)} {'x' * self.chance.randrange(60)}"
                self.lines.append(line)
                cut = self.chance.randrange(len(line)) if self.chance.random() < 0.2 else len(line)
                log.write(line[:cut])
                log.flush()
                log.write(f"{line[cut:]}\n")

    def renamed(self) -> None:
        """Rotate by a new name; the new file begins with a line at once, or later."""
        self.turns += 1
        self.path.rename(self.folder / f"app.log.{self.turns}")
        if self.chance.random() < 0.5:
            self.write()

    def copied(self) -> None:
        """Rotate by a copy and a truncation of the file itself."""
        self.turns += 1
        shutil.copyfile(self.path, self.folder / f"app.log.{self.turns}")
        os.truncate(self.path, 0)

    def swapped(self) -> None:
        """Let the name lead to another file at once, as a new symbolic link does."""
        self.turns += 1
        new = self.folder / f"real-{self.turns}"
        new.touch()
        link = self.folder / "link"
        link.symlink_to(new.name)
        if not self.path.is_symlink():
            self.path.rename(self.folder / "app.log.0")
        os.replace(link, self.path)


_KINDS: tuple[Callable[[_Writer], None], ...] = (_Writer.renamed, _Writer.copied, _Writer.swapped)


def rotated(folder: Path, chance: Random) -> str:
    """Rotate a log while it is followed and while nobody does: every line is written once, and in order."""
    writer, kind = _Writer(folder, chance), chance.choice(_KINDS)
    asyncio.run(_rotated(writer, kind))
    found = (folder / "out.txt").read_text().splitlines()
    if found == writer.lines:
        return ""
    lost, more = len(set(writer.lines) - set(found)), len(found) - len(set(found))
    return f"{kind.__name__}: {lost} of {len(writer.lines)} lines lost, {more} repeated, or out of order"


async def _rotated(writer: _Writer, kind: Callable[[_Writer], None]) -> None:
    chance = writer.chance
    writer.write()
    for stretch in range(chance.randint(1, 3)):
        supervisor = _recipe(writer.folder).supervisor()
        running = asyncio.ensure_future(supervisor.run())
        for _ in range(chance.randint(2, 5)):
            await asyncio.sleep(chance.uniform(0, _POLL))
            act = chance.choice(["write", "write", "rotate"])
            rotates = act == "rotate" and writer.path.exists() and writer.path.stat().st_size > 0
            if rotates:
                # A copy loses what nobody had read by then, whoever follows: so it is read first.
                await _caught_up(supervisor, writer)
                kind(writer)
                await asyncio.sleep(2 * _POLL)
            writer.write()
            if rotates:  # what is renamed again before anybody has seen it is lost, whoever follows
                await asyncio.sleep(2 * _POLL)
        if kind is not _Writer.renamed or stretch == 2 or chance.random() < 0.5:
            await _caught_up(supervisor, writer)
        supervisor.drain()
        await running
        if kind is _Writer.renamed and chance.random() < 0.5:
            kind(writer)  # while nobody follows
    await _finish(writer)


async def _finish(writer: _Writer) -> None:
    """Follow once more, until all is read."""
    if not writer.path.exists():
        writer.write()
    supervisor = _recipe(writer.folder).supervisor()
    running = asyncio.ensure_future(supervisor.run())
    await _caught_up(supervisor, writer)
    supervisor.drain()
    with suppress(PipelineError):
        await running


async def _caught_up(supervisor: Supervisor, writer: _Writer) -> None:
    """Wait until so many lines are written as there are, for three seconds at most."""
    out = writer.folder / "out.txt"
    for _ in range(100):
        await asyncio.sleep(0.03)
        if out.exists() and out.read_bytes().count(b"\n") >= len(writer.lines):
            return


def _recipe(folder: Path) -> Pipeline:
    return (
        Pipeline("rotation", checkpoint={"path": str(folder / "state.db"), "interval": 0.03})
        | sources.Lines(path=str(folder / "app.log"), follow=True)
        | batchers.Fixed(size=10, linger=0.01)
        | sinks.Lines(path=str(folder / "out.txt"))
    )
