"""Somebody else at the databases: a reader that keeps the state's -wal in use (C16), a writer that locks a sink."""

import random
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pipeline.verify.child import Child, Ended, run
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = ("hold_reader", "lock_sink")

_WAL = 64 * 2**20
_SHARE = 0.8
"""Of the speed without a reader, at least."""
_TIMES = 3


def hold_reader(bench: Bench, row: Row) -> None:
    """Run with a query on the state left open, and without, by turns: as fast, and the -wal stays within bounds."""
    started = time.monotonic()
    with suppress(Wrong), bench.broken("held") as folder:
        run(folder, [*bench.scenario.arguments(), "--limit", "100"])  # so that there is a state to be read
        with _reading(folder / "state.db"):
            child, most = Child(folder, bench.scenario.arguments()), 0
            while (ended := child.wait(0.02)) is None:
                most = max(most, _size(folder / "state.db-wal"))
        row.most("KiB of -wal, most", most // 1024)
        problem = f"the -wal grew to {most:,} bytes" if most > _WAL else _trouble(ended)
        bench.finish(folder, row, "a query left open", problem)
    free, held = (min(_timed(bench, with_reader) for _ in range(_TIMES)) for with_reader in (False, True))
    row.count("% of the speed", round(100 * free / held))
    row.check("speed", problem=f"{held:.2f} s in place of {free:.2f} s" if free / held < _SHARE else "")
    row.seconds += time.monotonic() - started


def lock_sink(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Lock the sink's database at random moments, in some runs for good: the run waits, or ends and can be resumed."""
    started = time.monotonic()
    for number in range(first, first + runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/lock")
        with suppress(Wrong), bench.broken(f"locked-{seed}-{number}") as folder:
            child = Child(folder, bench.scenario.arguments())
            child.wait(chance.uniform(0.2, bench.seconds))
            held = chance.choice([0.3, 1.0, 7.0])
            with _locked(folder / "out.db") as got:
                row.count("locked" if got else "not there yet, or busy")
                ended = child.wait(held)
            ended = ended or child.wait() or child.kill()
            row.count(f"exit {ended.code}")
            problem = "" if ended.code in (0, 1) else f"ended with {ended.code} after {held:g} s"
            bench.finish(folder, row, f"{number}, {held:g} s", problem or (_trouble(ended) if ended.traced else ""))
    row.seconds += time.monotonic() - started


def _timed(bench: Bench, with_reader: bool) -> float:
    with bench.broken("timed") as folder:
        run(folder, [*bench.scenario.arguments(), "--limit", "100"])
        if not with_reader:
            return run(folder, bench.scenario.arguments()).seconds
        with _reading(folder / "state.db"):
            return run(folder, bench.scenario.arguments()).seconds


@contextmanager
def _reading(path: Path) -> Generator[None, None, None]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM cuts").fetchone()
        yield


@contextmanager
def _locked(path: Path) -> Generator[bool, None, None]:
    if not path.exists():
        yield False
        return
    with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            yield False
            return
        yield True


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _trouble(ended: Ended) -> str:
    return f"exit {ended.code}: {ended.said.strip()[-300:]}" if ended.code or ended.traced else ""
