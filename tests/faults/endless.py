"""An endless source into a sink that takes 20,000 records a second: memory stays flat and every channel bounded."""

import asyncio
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import Sink, SinkContext, Writer
from pipeline.verify.child import run
from pipeline.watch.report import Report
from stages import batchers, sources
from tests.faults.row import Row

__all__ = ("Metered", "resident", "run_endless")

_RATE = 20_000
_GROWTH = 64 * 2**20
_WARM = 1.5


class Metered(Sink, kw_only=True):
    """Take so many records a second and forget them."""

    rate: float = _RATE

    async def open(self, context: SinkContext) -> Writer:
        return _MeteredWriter(self.rate)


class _MeteredWriter(Writer):
    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = anyio.current_time()

    async def write(self, batch: Batch) -> None:
        self._free = max(self._free, anyio.current_time()) + len(batch.records) / self._rate
        await anyio.sleep_until(self._free)


def run_endless(folder: Path, row: Row, seconds: float) -> None:
    """Run for so long in a child, and check what it measured."""
    folder.mkdir(parents=True)
    ended = run(folder, ["-m", "tests.faults.endless", str(seconds)])
    row.seconds += ended.seconds
    if ended.code:
        row.check(f"{seconds:g} s", problem=f"exit {ended.code}: {ended.said[-1000:]}")
        return
    seen = _Seen(**json.loads(ended.said.splitlines()[-1]))
    row.count("records/s", round(seen.read / seconds))
    row.count("KiB grown", seen.growth // 1024)
    row.count("% source waited", round(seen.waited * 100))
    row.check(f"{seconds:g} s", problem="; ".join(seen.problems(seconds)))


@dataclass(slots=True)
class _Seen:
    """What the child saw of itself."""

    read: int
    growth: int
    fill: float
    waited: float
    outcome: str
    unsettled: int

    def problems(self, seconds: float) -> list[str]:
        """Return what is not as it should be."""
        checks = {
            f"grew by {self.growth:,} bytes": self.growth <= _GROWTH,
            f"read {self.read:,} records in {seconds:g} s": self.read <= _RATE * (seconds + 2),
            f"only {self.read:,} records in {seconds:g} s": self.read >= _RATE * seconds * 0.5,
            f"a channel was filled to {self.fill:.0%}": self.fill <= 1,
            f"the source waited only {self.waited:.0%} of the time": self.waited > 0.3,
            f"ended {self.outcome} with {self.unsettled} unsettled": (self.outcome, self.unsettled) == ("drained", 0),
        }
        return [text for text, good in checks.items() if not good]


async def _measure(seconds: float) -> dict[str, Any]:
    pipeline = (
        Pipeline("endless", checkpoint={"path": "state.db", "interval": 0.2})
        | sources.Generate(record={"n": "n", "text": "'some text of a record that is not very long'"})
        | batchers.Fixed(size=500)
        | Metered()
    )
    supervisor = pipeline.supervisor()
    rss: list[int] = []
    fills: list[float] = []
    reports: list[Report] = []

    async def run_it() -> None:
        reports.append(await supervisor.run())

    async with anyio.create_task_group() as group:
        group.start_soon(_sample, supervisor, seconds, rss, fills)
        group.start_soon(run_it)
    (report,) = reports
    stages = {stage.role: stage for stage in report.stages}
    return {
        "read": report.account.read,
        "growth": max(rss) - rss[0],
        "fill": max(fills),
        "waited": stages["source"].waiting_out,
        "outcome": report.outcome,
        "unsettled": report.account.unsettled,
    }


async def _sample(supervisor: Supervisor, seconds: float, rss: list[int], fills: list[float]) -> None:
    await anyio.sleep(min(_WARM, seconds / 4))
    ends = anyio.current_time() + seconds - min(_WARM, seconds / 4)
    while anyio.current_time() < ends:
        rss.append(resident())
        fills.extend(channel.fill for channel in supervisor.status().channels)
        await anyio.sleep(0.05)
    supervisor.drain()


def resident() -> int:
    """Return the bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_measure(float(sys.argv[1])))) + "\n")
