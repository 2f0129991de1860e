"""State files of an older schema: brought up to date in one transaction, whatever moment of that is the last (C13)."""

import shutil
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from pipeline.settle.schema import VERSION
from pipeline.verify.child import run
from tests.faults.kills import Bench, Wrong
from tests.faults.refusals import HalfDone
from tests.faults.row import Row

__all__ = ("POINTS_OF_MIGRATION", "migrate_state")

_TAKEN_BACK: dict[int, tuple[str, ...]] = {1: ("ALTER TABLE letters DROP COLUMN letter",)}
"""What makes version n of version n + 1: the reverse of each migration that was ever released."""

_KILLS = 12
_CALLS = ("pwrite64", "fdatasync", "ftruncate", "unlink", "fsync")

POINTS_OF_MIGRATION: tuple[tuple[str, int], ...] = (("", 0), *(
    (call, number) for call in _CALLS for number in range(1, (_KILLS if call == "pwrite64" else 2) + 1)
))  # fmt: skip
"""Where a run over an older state is killed: not at all, and as its n-th call of a kind on the state begins."""


def migrate_state(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Take a half-finished run's state back to each older schema and kill the next run at some call on it."""
    started = time.monotonic()
    half = HalfDone.make(bench)
    older = {version: _state_of(half, version) for version in range(1, VERSION)}
    for number in range(first, first + runs):
        call, place = POINTS_OF_MIGRATION[number % len(POINTS_OF_MIGRATION)]
        for version, content in older.items():
            label = f"from {version}, {call or 'no kill'} {place}"
            with suppress(Wrong):
                _migrate(bench, half, row, label, content, call, place)
    half.remove()
    row.seconds += time.monotonic() - started


def _migrate(bench: Bench, half: HalfDone, row: Row, label: str, state: bytes, call: str, place: int) -> None:
    folder = bench.folder / label.replace(" ", "-").replace(",", "")
    shutil.copytree(half.folder, folder)
    (folder / "state.db").unlink()
    (folder / "state.db").write_bytes(state)
    before = []
    if call:
        files = [
            word for name in ("state.db", "state.db-wal", "state.db-journal") for word in ("-P", str(folder / name))
        ]
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={place}"]
        before = ["strace", "-f", "-qq", "-o", "trace.txt", *files, *inject]
        ended = run(folder, bench.scenario.arguments(), before=before)
        row.count("killed" if ended.code == -9 else "too late")
    bench.finish(folder, row, label)
    found = _schema_of(folder / "state.db")
    version = int(label.split(",")[0].removeprefix("from "))
    kept = _schema_of(folder / f"state.db.v{version}")
    if (found, kept) != (VERSION, version):
        row.failures.append(f"{row.name} [{label}]: the schema is {found}, not {VERSION}; that of the copy {kept}")
    else:
        shutil.rmtree(folder)


def _schema_of(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _state_of(half: HalfDone, version: int) -> bytes:
    """Return the state file as code of an older version would have left it."""
    path = half.side / "older.db"
    path.write_bytes(half.kept["state.db"])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        for each in range(VERSION - 1, version - 1, -1):
            for statement in _TAKEN_BACK[each]:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("PRAGMA journal_mode = WAL")
    content = path.read_bytes()
    path.unlink()
    return content
