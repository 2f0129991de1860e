"""The suite is believed because it convicts: eight faults are planted in copies of the packages, and each is caught."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ("MUTANTS", "Mutant", "planted", "run_mutants")

_ROOT = Path(__file__).parents[2]
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: the text that is replaced in a file of the packages, and what must catch it.

    ``check`` is what Python runs in the copy: some runs of a row of the suite, or a test.
    """

    name: str
    path: str
    old: str
    new: str
    check: tuple[str, ...]


def _row(name: str, runs: int = 6) -> tuple[str, ...]:
    # Checkpoints sync by twos and threes, so each fifth sync meets all sorts of them.
    return ("-m", "tests.faults", "--rows", name, "--runs", str(runs), "--step", "5", "--first-failure")


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "no truncate on resume",
        "stages/sinks/resumption.py",
        "            os.ftruncate(fd, length)\n",
        "            os.fstat(fd)\n",
        _row("kills/jsonl"),
    ),
    Mutant(
        "no sink fsync",
        "stages/sinks/syncs.py",
        "        os.fsync(descriptor)\n",
        "        os.fstat(descriptor)\n",
        _row("power/jsonl"),
    ),
    Mutant(
        "checkpoint before sink",
        "pipeline/settle/checkpointer.py",
        "        await self._sync()\n        await self._store.save(cut)\n",
        "        await self._store.save(cut)\n        await self._sync()\n",
        _row("power-at-syncs/jsonl"),
    ),
    Mutant(
        "cursor at read",
        "pipeline/flow/source.py",
        "        number = frontier.number\n        if number == frontier.next:",
        "        number = frontier.next\n        if number == frontier.next:",
        _row("kills/jsonl"),
    ),
    Mutant(
        "swallowed cancel in the channel",
        "pipeline/flow/channel.py",
        "                    self._leave_line(turn)\n                    raise\n",
        "                    self._leave_line(turn)\n                    continue\n",
        # Who swallows a cancellation swallows that of a test that takes too long too: only the thread ends it.
        ("-m", "pytest", "-x", "-vv", "--timeout", "20", "--timeout-method", "thread", "tests/flow/test_channel.py"),
    ),
    # There is no queue with rescued jobs here. Its like is a record that comes again after a crash and is written
    # again, because nobody asks whether the sink holds it.
    Mutant(
        "rescue without attempt guard (what the sink holds is not asked)",
        "stages/sinks/sqlite_ledger.py",
        "        if not self._exact or not _has_tables(connection):\n            return held\n",
        "        if held is not None:\n            return held\n",
        _row("kills/sqlite"),
    ),
    Mutant(
        "zero-length state accepted",
        "pipeline/settle/state.py",
        "        if path.exists():\n            verify(",
        "        if path.exists() and path.stat().st_size:\n            verify(",
        _row("refusals/jsonl"),
    ),
    # A letter is saved in the cut that settles its record; here it is left to the next one.
    Mutant(
        "letter write not awaited",
        "pipeline/settle/checkpointer.py",
        "        await self._store.save(cut)\n        self._on_saved(cut)\n",
        "        letters, late = cut.letters, vars(self).setdefault('_late', [])\n"
        "        cut.letters = [*late, *letters] if final else list(late)\n"
        "        late[:] = letters\n"
        "        await self._store.save(cut)\n"
        "        cut.letters = letters\n"
        "        self._on_saved(cut)\n",
        _row("kills/letters"),
    ),
)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether a check failed, and the line that says what it found."""

    caught: bool
    by: str
    seconds: float


def run_mutants(folder: Path, words: Sequence[str] = ()) -> bool:
    """Plant each fault in a copy and run what must catch it, first without the fault; print a line for each.

    With ``words`` only those that have one of them in their names. Return whether every fault was caught, and nothing
    where there was none.
    """
    clean = _copied(folder / "clean")
    innocent: dict[tuple[str, ...], _Verdict] = {}
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    caught = 0
    for mutant in chosen:
        if mutant.check not in innocent:
            innocent[mutant.check] = _run(clean, mutant.check)
        if innocent[mutant.check].caught:
            print(f"{mutant.name}: of no use, the check fails without it: {innocent[mutant.check].by}", flush=True)
            continue
        copy = _copied(folder / "planted")
        (copy / mutant.path).write_text(planted(mutant, copy))
        verdict = _run(copy, mutant.check)
        shutil.rmtree(copy)
        caught += verdict.caught
        told = f"caught by {_named(mutant.check)}: {verdict.by}" if verdict.caught else "SURVIVED"
        print(f"{mutant.name}: {told} ({verdict.seconds:.0f} s)", flush=True)
    print(f"{caught} of {len(chosen)} caught")
    return caught == len(chosen) > 0


def planted(mutant: Mutant, root: Path = _ROOT) -> str:
    """Return the text of a file with the fault in it.

    :raises RuntimeError: when the text to replace is not there exactly once any more.
    """
    text = (root / mutant.path).read_text()
    if text.count(mutant.old) != 1:
        raise RuntimeError(
            f"mutant '{mutant.name}': {mutant.path} has its text {text.count(mutant.old)} times, not once"
        )
    found = text.replace(mutant.old, mutant.new)
    compile(found, mutant.path, "exec")
    return found


def _copied(folder: Path) -> Path:
    skipped = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for name in ("pipeline", "stages", "tests"):
        shutil.copytree(_ROOT / name, folder / name, ignore=skipped)
    shutil.copy(_ROOT / "pyproject.toml", folder)
    return folder


def _run(root: Path, check: Sequence[str]) -> _Verdict:
    started = time.monotonic()
    environ = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *check]
    done = subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, timeout=_PATIENCE, check=False
    )
    return _Verdict(done.returncode == 1, _found(done.stdout, done.stderr, check)[:300], time.monotonic() - started)


def _found(said: str, errors: str, check: Sequence[str]) -> str:
    """Return the line that says what was found: a failure of the row, or the test that failed or did not end."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "--rows" in check:
        found = [line for line in lines if line.startswith((f"{check[3]} [", f"{check[3]}:"))]
    else:
        found = [line for line in lines if "::" in line and "PASSED" not in line]
    return (found or lines[-1:] or [errors.strip()[-300:]])[0]


def _named(check: Sequence[str]) -> str:
    return check[3] if "--rows" in check else check[-1]
