"""Cases that need no process each: a child does many of them, every one in a folder and from a seed of its own."""

import json
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, TypedDict

from pipeline.verify.child import Child
from tests.faults.row import Row

__all__ = ("CASES", "Case", "Done", "do_cases", "found_apart", "peak", "run_apart")


class Done(TypedDict):
    """The number of each case and what went wrong in it; what became more on the way; bytes of memory at most."""

    cases: list[tuple[int, str]]
    left: list[str]
    bytes: int


Case = Callable[[Path, Random], str]
"""Does one case in an empty folder; returns what went wrong, nothing if all was well."""

CASES = {
    "flaky": "tests.faults.flaky:flaky",
    "cancels": "tests.faults.cancels:cancelled",
    "channel": "tests.faults.cancels:traffic",
    "cycles": "tests.faults.cycles:cycle",
    "sink-values": "tests.faults.poison:poisoned",
    "corrupt-gzip": "tests.faults.corrupt:corrupt",
    "rotation": "tests.faults.rotation:rotated",
    "expressions": "tests.faults.attacks:attacked_expression",
    "file-names": "tests.faults.attacks:attacked_name",
}
"""Which function does the cases of a row."""

_PATIENCE = 900.0
_WARM = 20
"""Cases after which descriptors and threads may not become more."""
_MEMORY = Path("/dev/shm")
"""Where cases are done that need no disk: nobody waits for a sync there. What went wrong is moved to the disk."""
_FEW = 2


def found_apart(
    folder: Path, row: Row, asked: Sequence[str], where: str, patience: float = _PATIENCE
) -> dict[str, Any] | None:
    """Run a module with its arguments in a child, and return the JSON of its last line; None where it failed."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    child = Child(folder, ["-m", *asked])
    ended = child.wait(patience) or child.kill()
    row.seconds += time.monotonic() - started
    if ended.code:
        row.check(where, problem=f"exit {ended.code}: {ended.said[-1000:]}")
        return None
    found: dict[str, Any] = json.loads(ended.said.splitlines()[-1])
    row.most("MiB, most", found["bytes"] // 2**20)
    return found


def run_apart(folder: Path, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Do so many cases of the row's name in one child; ``first`` is the number of the first."""
    asked = ["tests.faults.apart", row.name, str(runs), str(seed), str(first)]
    found = found_apart(folder, row, asked, f"seed {seed}, from {first} on")
    if found is None:
        return
    for number, problem in found["cases"]:
        row.check(f"{seed}/{row.name}/{number}", problem=problem)
    for problem in found["left"]:
        row.failures.append(f"{row.name} [seed {seed}, from {first} on]: {problem}")


def do_cases(case: Case, name: str, numbers: range, seed: int, folder: Path) -> Done:
    """Do the cases; return what went wrong in each, and what became more on the way."""
    found: list[tuple[int, str]] = []
    before = _held()
    scratch = Path(tempfile.mkdtemp(prefix="faults-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else folder))
    for number in numbers:
        place = scratch / f"{name}-{number}"
        place.mkdir()
        try:
            problem = case(place, Random(f"{seed}/{name}/{number}"))
        except Exception:  # whatever comes out is what is looked for
            problem = traceback.format_exc(limit=-4)
        found.append((number, problem))
        if problem:
            shutil.move(place, folder)
        else:
            shutil.rmtree(place)
        if number == numbers[0] + _WARM:
            before = _held()
    shutil.rmtree(scratch)
    after = _held()
    warm = len(numbers) > _WARM + 1
    left = [f"{after[key] - before[key]} more {key}" for key in before if warm and after[key] > before[key] + _FEW]
    return {"cases": found, "left": left, "bytes": peak()}


def peak() -> int:
    """Return the most bytes of memory that this process has had; of what `getrusage` says some is its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _held() -> dict[str, int]:
    return {"descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()), "threads": threading.active_count()}


def _main(name: str, runs: str, seed: str, first: str) -> None:
    module, _, function = CASES[name].partition(":")
    case: Case = getattr(import_module(module), function)
    numbers = range(int(first), int(first) + int(runs))
    sys.stdout.write(f"\n{json.dumps(do_cases(case, name, numbers, int(seed), Path.cwd()))}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
