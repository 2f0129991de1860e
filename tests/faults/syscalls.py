"""Kills and errors at each system call that changes storage, one run for each; strace injects them."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.verify.child import Ended, run
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = (
    "CALLS",
    "ERRORS",
    "POINTS",
    "Injection",
    "inject_each",
    "inject_error",
    "inject_errors",
    "kill_at_call",
    "kill_at_calls",
    "kill_at_each",
)

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "link")
"""What a run does to storage. strace counts each by thread, and each is counted until a run ends unharmed."""

_OUTPUTS = ("out.jsonl", "out.db", "out.db-journal", "out.db-wal")

POINTS: tuple[tuple[str, tuple[str, ...]], ...] = tuple((call, files) for files in ((), _OUTPUTS) for call in CALLS)
"""Which calls are counted together: all of a kind, and those on the outputs."""

_MOST = 4_000
"""Calls of one kind in one thread that a run may need; more means that the count never ends."""

_OWN = 120
"""Calls that the state file's thread makes at most; later ones are a database sink's, which are counted apart."""


@dataclass(frozen=True, slots=True)
class Injection:
    """An error for certain system calls: of certain files, if there are some; ``onwards`` from the n-th call on."""

    calls: str
    error: str
    files: tuple[str, ...] = ()
    onwards: bool = False

    def __str__(self) -> str:
        return f"{self.calls} {self.error}{' onwards' if self.onwards else ''}"


ERRORS: tuple[Injection, ...] = (
    Injection("fsync,fdatasync", "EIO"),
    Injection("fsync,fdatasync", "EIO", onwards=True),
    Injection("write,writev", "ENOSPC", files=("out.jsonl",)),
    Injection("write,writev", "ENOSPC", files=("out.jsonl",), onwards=True),
    Injection("pwrite64", "ENOSPC"),
    Injection("pwrite64", "ENOSPC", onwards=True),
    Injection("ftruncate", "EIO"),
    Injection("rename", "EIO"),
)


def kill_at_calls(bench: Bench, row: Row, step: int = 1) -> None:
    """Kill a run as its n-th call of a kind begins, for each n (or each ``step``-th) until it ends unharmed.

    Once for all calls, and once for those on the outputs: the n-th call of one thread hides that of another.
    """
    for call, files in POINTS:
        kill_at_each(bench, row, call, files, step)


def kill_at_each(bench: Bench, row: Row, call: str, files: Sequence[str] = (), step: int = 1, first: int = 1) -> None:
    """Kill a run as its n-th call of one kind begins, for each ``step``-th n from the first until it ends unharmed."""
    started = time.monotonic()
    last = _OWN if call == "pwrite64" and not files else _MOST
    for number in range(first, last, step):
        if not kill_at_call(bench, row, call, number, files):
            row.most(f"{call} calls{' on outputs' * bool(files)}, most", number - 1)
            break
    else:
        if last == _MOST and first < last:
            row.failures.append(f"{row.name}: {call} was still called after {_MOST} times")
    row.seconds += time.monotonic() - started


def inject_errors(bench: Bench, row: Row, step: int = 1) -> None:
    """Let the n-th call of a kind fail, for each n: the run ends with 6 and a cause in one line, and can be resumed.

    SQLite gets over some failures by itself: such a run may end with 0, and its outputs are compared just so.
    """
    for injection in ERRORS:
        inject_each(bench, row, injection, step)


def inject_each(bench: Bench, row: Row, injection: Injection, step: int = 1) -> None:
    """Let the n-th call of one kind fail, for each ``step``-th n until a run does not come so far."""
    started = time.monotonic()
    for number in range(1, _MOST, step):
        if not inject_error(bench, row, injection, number):
            break
    row.seconds += time.monotonic() - started


def kill_at_call(bench: Bench, row: Row, call: str, number: int, files: Sequence[str] = ()) -> bool:
    """Kill a run as its n-th call of a kind begins, and let it resume; False if it came to its end before.

    ``files`` are those whose calls count; all, if there are none.
    """
    label = f"{call}-{number}{'-out' * bool(files)}"
    try:
        with bench.broken(label) as folder:
            before = _strace(call, f"signal=SIGKILL:when={number}", *_only(folder, files))
            ended = run(folder, bench.scenario.arguments(), before=before)
            if ended.code == 0:
                return False
            row.count("killed")
            problem = "" if ended.code == -9 else f"ended with {ended.code} under SIGKILL: {ended.said[-300:]}"
            bench.finish(folder, row, label, problem)
    except Wrong:
        pass
    return True


def inject_error(bench: Bench, row: Row, injection: Injection, number: int) -> bool:
    """Let the n-th call fail, and resume; False if the run came to its end before."""
    label = f"{injection.calls}-{injection.error}-{number}{'+' * injection.onwards}".replace(",", "-")
    try:
        with bench.broken(label) as folder:
            when = f"error={injection.error}:when={number}{'+' * injection.onwards}"
            # The filter makes it four times as fast; with it strace 6.1 injects errors, but no signals.
            ended = run(
                folder,
                bench.scenario.arguments(),
                before=_strace(injection.calls, when, "--seccomp-bpf", *_only(folder, injection.files)),
            )
            lines = (folder / "trace.txt").read_text(errors="replace").splitlines()
            if not any("(INJECTED)" in line for line in lines):
                return False
            row.count(f"{injection}: exit {ended.code}")
            problem = _wrong_end(ended, injection) or _synced_again(lines, folder)
            bench.finish(folder, row, label, problem)
    except Wrong:
        pass
    return True


def _wrong_end(ended: Ended, injection: Injection) -> str:
    if ended.traced:
        return f"a traceback: {ended.said[-500:]}"
    if ended.code not in (0, 6):
        return f"ended with {ended.code} in place of 6: {ended.said[-500:]}"
    if ended.code == 6 and not re.search(r"out\.|state\.", ended.said):
        return f"does not name the file: {ended.said[-500:]}"
    return ""


def _synced_again(lines: Sequence[str], folder: Path) -> str:
    """Return what shows that a file was synced again after its sync had failed; empty if none was.

    SQLite itself passes over a failed sync of the folder, and when it turns a new file into one with a write-ahead log,
    before any row is in it, it takes back what could not be synced.
    """
    failed: set[str] = set()
    synced: set[str] = set()
    for line in lines:
        found = re.search(r"f(?:data)?sync\(\d+<([^>]+)>", line)
        if found is None or found[1] == str(folder):
            continue
        synced.add(found[1])
        if f"{found[1]}-journal" in synced and f"{found[1]}-wal" not in synced:
            continue
        if found[1] in failed:
            return f"synced again after a failure: {line}"
        if "(INJECTED)" in line:
            failed.add(found[1])
    return ""


def _only(folder: Path, files: Sequence[str]) -> list[str]:
    return [word for name in files for word in ("-P", str(folder / name))]


def _strace(calls: str, what: str, *more: str) -> list[str]:
    return [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-o",
        "trace.txt",
        *more,
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{what}",
    ]
