"""Runs of whole pipelines in one process: real files, and a gate that a test opens."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio

from pipeline import Pipeline
from pipeline.flow.supervisor import Supervisor
from pipeline.watch.report import Report, Status

__all__ = ("Gate", "exactly", "numbered", "numbers_in", "of_stage", "records_in", "run_beside", "standing", "until")

Record = dict[str, Any]


class Gate:
    """A batch function that lets nothing through until it is opened; counts who waits."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self.came = 0

    async def pass_through(self, records: list[Any]) -> list[Any]:
        """Wait until the gate is open."""
        self.came += len(records)
        await self._open.wait()
        return records

    def open(self) -> None:
        """Let everything through from now on."""
        self._open.set()


def exactly(name: str, folder: Path, **keys: Any) -> Pipeline:
    """Return the beginning of a pipeline that saves its state in a folder and delivers exactly once."""
    checkpoint = {"path": str(folder / "state.db"), "interval": 0.05, **keys.pop("checkpoint", {})}
    return Pipeline(name, delivery="exactly_once", checkpoint=checkpoint, **keys)


def numbered(path: Path, count: int, first: int = 0) -> str:
    """Append records ``{"n": first}`` and on to a file, and return its path."""
    with path.open("a") as lines:
        lines.writelines(f'{{"n": {n}}}\n' for n in range(first, first + count))
    return str(path)


def records_in(path: Path) -> list[Record]:
    """Return what a sink wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def numbers_in(path: Path) -> list[int]:
    """Return the numbers of the records that a sink wrote."""
    return [record["n"] for record in records_in(path)]


async def run_beside(pipeline: Pipeline, meanwhile: Callable[[Supervisor], Awaitable[None]]) -> Report:
    """Run a pipeline, and something else beside it that watches and steers; return the report."""
    supervisor = pipeline.supervisor()
    reports: list[Report] = []

    async def run() -> None:
        reports.append(await supervisor.run())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await meanwhile(supervisor)
    return reports[0]


async def until(supervisor: Supervisor, seen: Callable[[Status], bool]) -> Status:
    """Look at a run until it is as asked; the time limit of the test ends it otherwise."""
    while True:
        status = supervisor.status()
        if seen(status):
            return status
        await anyio.sleep(0.001)


async def standing(supervisor: Supervisor, turns: int = 50) -> Status:
    """Look at a run until nothing has been read for so many looks."""
    same, before = 0, -1
    while same < turns:
        await anyio.sleep(0.001)
        read = supervisor.status().account.read
        same = same + 1 if read == before and read else 0
        before = read
    return supervisor.status()


def of_stage(statuses: Iterable[Any], name: str) -> Any:
    """Return the status of a stage."""
    return next(
        status for status in statuses if name in (getattr(status, "name", None), getattr(status, "stage", None))
    )
