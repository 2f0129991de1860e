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

from pipeline.verify.child import Child
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = ("Disk", "cut_power_at_random", "shim")

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


def cut_power_at_random(bench: Bench, row: Row, library: Path, cuts: int, seed: int) -> None:
    """Cut the power at random moments, in half of the runs a second time; then let them end and compare."""
    started = time.monotonic()
    number = 0
    while row.notes.get("cuts", 0) < cuts and number < 2 * cuts:
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/power")
        label = f"power-{seed}-{number}"
        try:
            with bench.broken(label) as folder:
                disk = Disk(folder, bench.folder / f"{label}.disk", library)
                told = [_cut(bench, row, disk, chance) for _ in range(1 + (chance.random() < 0.5))]
                shutil.rmtree(disk.kept)
                bench.finish(folder, row, f"{label}: {', '.join(told)}")
        except Wrong:
            pass
        number += 1
    row.seconds += time.monotonic() - started


def _cut(bench: Bench, row: Row, disk: "Disk", chance: random.Random) -> str:
    """Run until a random moment and cut the power; returns what was done, for the log."""
    moment, mode = chance.uniform(0, bench.seconds), chance.choice(_MODES)
    disk.begin()
    child = Child(disk.folder, bench.scenario.arguments(), environ=disk.environ())
    ended = child.wait(moment) or child.kill()
    row.count("cuts" if ended.code == -signal.SIGKILL else "too late")
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
