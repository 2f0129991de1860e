"""Simulated power cuts: what a run finds afterwards is what a disk must have kept, and no more."""

import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.verify.child import Child, run
from tests.faults.kills import DRAWS, Bench, Wrong
from tests.faults.row import Row

__all__ = ("Disk", "cut_power_at_random", "cut_power_at_sync", "cut_power_at_syncs", "shim")

Mode = Literal["least", "names", "zeros"]
"""What the disk has kept beyond its promise: nothing (a file is as it was at its last sync, a folder's list of names
too); all names and lengths that were cut; those and the lengths that grew, with zeros where the data is missing."""

_MODES: tuple[Mode, ...] = ("least", "names", "zeros")


def shim(folder: Path) -> Path:
    """Compile the preload library that keeps what is synced, and return its path."""
    library = folder / "powercut.so"
    source = Path(__file__).with_name("powercut.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def cut_power_at_random(bench: Bench, row: Row, library: Path, cuts: int, seed: int, first: int = 0) -> None:
    """Cut the power at a random moment of each run, in half of them a second time; then let it end and compare.

    A cut that comes too late is drawn again.
    """
    started = time.monotonic()
    for number in range(first, first + cuts):
        for draw in range(DRAWS):
            label = f"power-{seed}-{number}{f'-{draw}' if draw else ''}"
            if _cut_run(bench, row, library, label, random.Random(f"{label}/{bench.scenario.name}")):
                break
            row.count("too late, drawn again")
        else:
            row.check(f"power-{seed}-{number}", problem=f"no cut came in time, {DRAWS} times")
    row.seconds += time.monotonic() - started


def cut_power_at_syncs(bench: Bench, row: Row, library: Path, step: int = 1) -> None:
    """Cut the power as the n-th sync begins, for each n (or each ``step``-th) until a run ends unharmed.

    The disk keeps the least it may: this is where a checkpoint that was saved too early shows for certain.
    """
    started = time.monotonic()
    number = 1
    while cut_power_at_sync(bench, row, library, number):
        number += step
    row.count("syncs", number - 1)
    row.seconds += time.monotonic() - started


def cut_power_at_sync(bench: Bench, row: Row, library: Path, number: int) -> bool:
    """Cut the power as the n-th sync begins, and compare; False if the run came to its end before."""
    label = f"sync-{number}"
    try:
        with bench.broken(label) as folder:
            disk = Disk(folder, bench.folder / f"{label}.disk", library)
            disk.begin()
            environ = {**disk.environ(), "POWER_CUT_AT": str(number)}
            ended = run(folder, bench.scenario.arguments(), environ=environ)
            if ended.code == 0:
                shutil.rmtree(disk.kept)
                return False
            row.count("cuts")
            problem = "" if ended.code == -signal.SIGKILL else f"ended with {ended.code}: {ended.said[-300:]}"
            disk.restore("least")
            shutil.rmtree(disk.kept)
            bench.finish(folder, row, label, problem)
    except Wrong:
        pass
    return True


def _cut_run(bench: Bench, row: Row, library: Path, label: str, chance: random.Random) -> bool:
    """Return whether the first cut found the run under way; otherwise nothing is counted."""
    try:
        with bench.broken(label) as folder:
            disk = Disk(folder, bench.folder / f"{label}.disk", library)
            told = [_cut(bench, row, disk, chance)]
            if told[0] and chance.random() < 0.5:
                told.append(_cut(bench, row, disk, chance))
            shutil.rmtree(disk.kept)
            if not told[0]:
                return False
            bench.finish(folder, row, f"{label}: {', '.join(filter(None, told))}")
    except Wrong:
        pass
    return True


def _cut(bench: Bench, row: Row, disk: "Disk", chance: random.Random) -> str:
    """Run until a random moment and cut the power; returns what was done, nothing if it was too late."""
    moment, mode = chance.uniform(0, bench.seconds), chance.choice(_MODES)
    disk.begin()
    child = Child(disk.folder, bench.scenario.arguments(), environ=disk.environ())
    ended = child.wait(moment) or child.kill()
    if ended.code != -signal.SIGKILL:
        return ""
    row.count("cuts")
    disk.restore(mode)
    return f"{mode} at {moment:.3f} s"


@dataclass(slots=True)
class Disk:
    """A folder on a disk that keeps only what it must. ``kept`` is where the shim puts what was synced."""

    folder: Path
    kept: Path
    library: Path
    _static: frozenset[str] = frozenset()

    def environ(self) -> dict[str, str]:
        """Return the environment of a run on this disk."""
        return {"LD_PRELOAD": str(self.library), "POWER_ROOT": str(self.folder), "POWER_DISK": str(self.kept)}

    def begin(self) -> None:
        """Take everything in the folder as kept: the power came back. What was there at first is input and config."""
        if not self._static:
            self._static = frozenset({"said.log", *(path.name for path in self.folder.iterdir())})
        shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir()
        for place in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            lines = [f"{_key(path)} {path.name}\n" for path in place.iterdir()]
            (self.kept / f"names-{_key(place)}").write_text("".join(lines))
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in self._static:
                shutil.copyfile(path, self.kept / f"file-{_key(path)}")

    def restore(self, mode: Mode) -> None:
        """Make the folder what the disk has kept. Files keep their inodes, as they would."""
        names = self._names_kept(_key(self.folder), Path()) if mode == "least" else self._names_now()
        side = self.kept / "side"
        side.mkdir()
        sizes: dict[str, int] = {}
        for path in self._own():
            if path.is_file():
                sizes[_key(path)] = path.stat().st_size
                path.rename(side / _key(path))
        for path in sorted(self._own(), reverse=True):
            path.rmdir()
        for name, key in names.items():
            place = self.folder / name
            if key is None:
                place.mkdir()
                continue
            if (side / key).exists():
                (side / key).rename(place)
            place.write_bytes(self._content(key, sizes.get(key, 0), mode))

    def _own(self) -> list[Path]:
        """Return what runs have made."""
        return [path for path in self.folder.rglob("*") if path.parts[len(self.folder.parts)] not in self._static]

    def _content(self, key: str, size: int, mode: Mode) -> bytes:
        kept = self.kept / f"file-{key}"
        content = kept.read_bytes() if kept.exists() else b""
        if mode == "least":
            return content
        return content[:size] + bytes(size - len(content[:size])) * (mode == "zeros")

    def _names_now(self) -> dict[Path, str | None]:
        """Return path and key of all files as they are, and of folders with None; folders before what is in them."""
        return {path.relative_to(self.folder): None if path.is_dir() else _key(path) for path in sorted(self._own())}

    def _names_kept(self, folder: str, place: Path) -> dict[Path, str | None]:
        names: dict[Path, str | None] = {}
        kept = self.kept / f"names-{folder}"
        for line in kept.read_text().splitlines() if kept.exists() else ():
            key, name = line.split(" ", 1)
            if place == Path() and name in self._static:
                continue
            if any(path.is_dir() and _key(path) == key for path in self._own()):
                names[place / name] = None
                names.update(self._names_kept(key, place / name))
            else:
                names[place / name] = key
        return names


def _key(path: Path) -> str:
    found = os.stat(path)
    return f"{found.st_dev}-{found.st_ino}"
