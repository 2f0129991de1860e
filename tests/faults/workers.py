"""Kills of one process of several: a worker, the writer, the coordinator; the end is that of one unbroken process."""

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from pipeline.settle.view import open_view
from pipeline.verify.breaking import last_words
from pipeline.verify.child import Child, run
from tests.faults.kills import Bench, Wrong
from tests.faults.records import Ident, rows, table, write_csv
from tests.faults.row import Row
from tests.faults.scenario import Output, Scenario

__all__ = ("FORKED", "SHARED", "VICTIMS", "kill_one_of_several")

VICTIMS = ("worker", "writer", "coordinator")
_BEGINS_WITHIN = 60.0
_PARTITIONS = 14


def _lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    import csv

    with (folder / "out.csv").open(newline="") as text:
        yield from csv.DictReader(text)


def _bytes(folder: Path) -> object:
    return (folder / "out.csv").read_bytes()


def _rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    return rows(folder / "out.db", "records")


def _table(folder: Path) -> object:
    # Partitions have no order among them where one writer takes what comes.
    return sorted(table(folder / "out.db", "records"))


def _letters(folder: Path) -> list[Mapping[str, Any]]:
    async def read() -> list[Mapping[str, Any]]:
        async with open_view(folder / "state.db") as view:
            return [letter.record for letter in await view.letters(limit=100_000)]

    return anyio.run(read)


def _places(folder: Path) -> object:
    async def read() -> list[tuple[str, str]]:
        async with open_view(folder / "state.db") as view:
            return sorted((letter.position, letter.error) for letter in await view.letters(limit=100_000))

    return anyio.run(read)


def _good(count: int) -> list[Ident]:
    return [number for number in range(count) if number % 11 != 5]


def _bad(count: int) -> list[Ident]:
    return list(range(5, count, 11))


SHARED = Scenario(
    "shared",
    lambda folder, count: write_csv(folder / "in.csv", count),
    {
        "file": Output(_lines, _good, image=_bytes),
        "table": Output(_rows, _good, lane=None, image=_table),
        "letters": Output(_letters, _bad, lane=None, image=_places),
    },
    """\
name: kills
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
partition: 128KiB
stages:
  - source: csv
    name: in
    with: {path: in.csv, types: {seq: int, crc: int}}
  - processor: call
    name: checked
    with: {function: "steps:checked"}
    on_failure: dead_letter
  - batcher: fixed
    with: {size: 100}
  - processor: call
    name: slow
    with: {function: "steps:slow", batch: true}
  - sink: csv
    name: file
    with: {path: out.csv, columns: [seq, key, crc, pad]}
  - sink: sqlite
    name: table
    from: slow
    with: {path: out.db, table: records}
""",
    count=20_000,
)


FORKED = Scenario(
    "forked",
    lambda folder, count: write_csv(folder / "in.csv", count),
    {"file": SHARED.outputs["file"], "table": SHARED.outputs["table"]},
    """\
name: kills
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
partition: 128KiB
stages:
  - source: csv
    name: in
    with: {path: in.csv, types: {seq: int, crc: int}}
  - processor: filter
    with: {where: "seq % 11 != 5"}
    rate_limit: {rate: 8000/s, burst: 100, per: record}
  - batcher: fixed
    with: {size: 100}
  - sink: csv
    name: file
    with: {path: out.csv, columns: [seq, key, crc, pad]}
  - sink: sqlite
    name: table
    from: fixed
    with: {path: out.db, table: records}
""",
    count=20_000,
)
"""Names no code, so that its first processes are forks of the coordinator."""


def kill_one_of_several(bench: Bench, row: Row, victim: str, runs: int, seed: int) -> None:
    """Kill one process of each run once or twice, at random moments; resume with three workers where the run ended."""
    started = time.monotonic()
    for number in range(runs):
        chance = random.Random(f"{seed}/{victim}/{number}")
        label = f"{victim}-{seed}-{number}"
        # A moment is a partition that has begun, and a while: however slow the machine is, it is within the work.
        moments = [(chance.randrange(-1, _PARTITIONS), chance.uniform(0, 0.2)) for _ in range(chance.randint(1, 2))]
        try:
            with bench.broken(label) as folder:
                problem = _broken_run(bench, row, folder, victim, moments)
                where = f"{label} at {', '.join(f'partition {at} and {moment:.3f} s' for at, moment in moments)}"
                _finish(bench, row, folder, where, problem)
        except Wrong:
            pass
    row.seconds += time.monotonic() - started


def _broken_run(bench: Bench, row: Row, folder: Path, victim: str, moments: list[tuple[int, float]]) -> str:
    """Kill as often as there are moments: a worker or a writer in one run, the coordinator once a run."""
    several = [moments] if victim != "coordinator" else [[moment] for moment in moments]
    for kills in several:
        child = Child(folder, [*bench.scenario.arguments(), "--workers", "2"])
        killed = 0
        for partition, moment in sorted(kills):
            if _wait_for(child, folder, partition) and child.wait(moment) is None:
                killed += _kill(child.pid, victim)
        row.count("kills", killed)
        row.count("too late", len(kills) - killed)
        ended = child.wait() or child.kill()
        allowed = {0, -signal.SIGKILL} if victim == "coordinator" and killed else {0}
        if ended.code not in allowed or ended.traced:
            return f"ended with {ended.code}: {last_words(ended)}"
    return ""


def _finish(bench: Bench, row: Row, folder: Path, where: str, problem: str) -> None:
    ended = run(folder, [*bench.scenario.arguments(), "--workers", "3"])
    if ended.code or ended.traced:
        problem = problem or f"exit {ended.code}: {last_words(ended)}"
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*partitions*"))
    problem = problem or (f"left behind: {left}" if left else "")
    before = len(row.failures)
    row.check(where, bench.scenario.audit(folder, bench.images), problem)
    if len(row.failures) > before:
        raise Wrong


def _wait_for(child: Child, folder: Path, partition: int) -> bool:
    """Wait until a partition has begun; tell whether the run is still going on then."""
    deadline = time.monotonic() + _BEGINS_WITHIN
    while time.monotonic() < deadline:
        begun = [int(path.stem) for path in folder.glob("state.db.partitions/*/*.db")]
        if max(begun, default=-1) >= partition:
            return True
        if child.wait(0.005) is not None:
            return False
    return True


def _kill(parent: int, victim: str) -> bool:
    """Kill a process of a run; a coordinator alone, its children are to notice."""
    if victim == "coordinator":
        os.kill(parent, signal.SIGKILL)
        return True
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            own = int(path.read_text().rpartition(")")[2].split()[1]) == parent
            # One that was spawned has its own command line from the first moment, a fork its name once it knows it.
            spawned = f"pipeline.workers\0{victim}\0".encode() in path.with_name("cmdline").read_bytes()
            if own and (spawned or path.with_name("comm").read_text().strip() == f"pipeline-{victim}"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
    return False
