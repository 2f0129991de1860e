"""A disk that is full (C7), and one that takes the first bytes of a write only (C9): then there is room again."""

import os
import random
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from pipeline.verify.child import Ended, run
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = ("can_mount", "fill_disk", "limit_files")

_FILLED = """\
set -e
mkdir "$1/disk" && mount -t tmpfs -o size="$2" tmpfs "$1/disk"
for name in "$1"/*; do
  case "$name" in */disk | */left | */said.log) ;; *) cp -a "$name" "$1/disk/" ;; esac
done
code=0
(cd "$1/disk" && shift 2 && exec "$@") || code=$?
mount -o remount,size=64m "$1/disk"
[ $code -eq 0 ] || (cd "$1/disk" && shift 2 && exec "$@") || true
cp -a "$1/disk/." "$1/left/"
exit $code
"""
"""Runs in a mount namespace of its own, where a small disk is filled; then there is room, and it is run again, before
what is on it is copied out: a file whose position was never saved is known by its inode alone."""


def can_mount() -> bool:
    """Tell whether a disk can be mounted here, in a namespace that nobody else sees."""
    tools = [shutil.which("unshare"), shutil.which("mount")]
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return all(tools) and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def fill_disk(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Run on a disk of some size: it ends with 6, and when there is room it goes on to the end of an unbroken run."""
    started = time.monotonic()
    needed = _bytes_in(bench.folder / "unbroken")
    inputs = _bytes_in(bench.folder / "inputs")
    for number in range(first, first + runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/disk")
        size = inputs + 32 * 1024 + int(chance.random() * (needed - inputs))
        with suppress(Wrong), bench.broken(f"disk-{seed}-{number}") as folder:
            left = folder / "left"
            left.mkdir()
            before = ["unshare", "-m", "sh", "-c", _FILLED, "sh", str(folder), str(size)]
            ended = run(folder, bench.scenario.arguments(), before=before)
            for path in left.iterdir():
                os.replace(path, folder / path.name)
            _resume(bench, row, folder, f"disk of {size} bytes", ended)
    row.seconds += time.monotonic() - started


def limit_files(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Run with a limit on the size of a file, at which a write takes only its first bytes; then without."""
    started = time.monotonic()
    largest = max(path.stat().st_size for path in (bench.folder / "unbroken").glob("out.*"))
    for number in range(first, first + runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/limit")
        limit = 8192 + chance.randrange(largest)
        with suppress(Wrong), bench.broken(f"limit-{seed}-{number}") as folder:
            ended = run(folder, bench.scenario.arguments(), before=["prlimit", f"--fsize={limit}"])
            _resume(bench, row, folder, f"files up to {limit} bytes", ended)
    row.seconds += time.monotonic() - started


def _resume(bench: Bench, row: Row, folder: Path, label: str, ended: Ended) -> None:
    row.count(f"exit {ended.code}")
    problem = ""
    if ended.traced or ended.code not in (0, 6):
        problem = f"ended with {ended.code} in place of 6: {ended.said.strip()[-400:]}"
    elif ended.code == 6 and "out." not in ended.said and "state." not in ended.said:
        problem = f"does not name the file: {ended.said.strip()[-400:]}"
    bench.finish(folder, row, label, problem)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "said.log")
