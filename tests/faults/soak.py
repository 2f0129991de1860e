"""A long run at a steady rate: after its warm-up neither memory nor descriptors, threads, tasks or files grow."""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import anyio

from pipeline import Pipeline
from pipeline.flow.supervisor import Supervisor
from pipeline.verify.child import Child
from pipeline.watch.report import Report
from stages import batchers, processors, sources
from tests.faults.endless import Metered, resident
from tests.faults.row import Row

__all__ = ("run_soak",)

_GROWTH = 5 * 2**20
_SPREAD = 2
"""How much counts of descriptors, threads and tasks may differ."""
_STATE = 5 * 2**20
"""Bytes by which the state file and what is beside it may grow after the warm-up."""
_RATE = 10_000


def run_soak(folder: Path, row: Row, seconds: float) -> None:
    """Run for so long in a child, and check what it measured of itself."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    child = Child(folder, ["-m", "tests.faults.soak", str(seconds)])
    ended = child.wait(seconds + 120) or child.kill()
    row.seconds += time.monotonic() - started
    if ended.code:
        row.check(f"{seconds:g} s", problem=f"exit {ended.code}: {ended.said[-1000:]}")
        return
    seen = _Seen(**json.loads(ended.said.splitlines()[-1]))
    row.count("records/s", round(seen.read / seconds))
    row.count("KiB grown", seen.grown // 1024)
    row.count("KiB of state grown", seen.state_grown // 1024)
    row.count("MiB, most", seen.largest // 2**20)
    row.check(f"{seconds:g} s", problem="; ".join(seen.problems(seconds)))


@dataclass(slots=True)
class _Seen:
    """What the child saw of itself after the warm-up: ``grown`` compares the medians of the first and last tenth."""

    read: int
    grown: int
    largest: int
    state_grown: int
    descriptors: int
    threads: int
    tasks: int
    outcome: str
    unsettled: int

    def problems(self, seconds: float) -> list[str]:
        """Return what is not as it should be."""
        checks = {
            f"grew by {self.grown:,} bytes": self.grown <= _GROWTH,
            f"the state grew by {self.state_grown:,} bytes": self.state_grown <= _STATE,
            f"descriptors differed by {self.descriptors}": self.descriptors <= _SPREAD,
            f"threads differed by {self.threads}": self.threads <= _SPREAD,
            f"tasks differed by {self.tasks}": self.tasks <= _SPREAD,
            f"only {self.read:,} records in {seconds:g} s": self.read >= _RATE * seconds * 0.5,
            f"ended {self.outcome} with {self.unsettled} unsettled": (self.outcome, self.unsettled) == ("drained", 0),
        }
        return [text for text, good in checks.items() if not good]


@dataclass(frozen=True, slots=True)
class _Sample:
    resident: int
    state: int
    descriptors: int
    threads: int
    tasks: int


def _odd(record: dict[str, int]) -> dict[str, int]:
    if record["n"] % 5_000 == 7:
        raise ValueError("one of five thousand")
    return record


async def _waits(records: list[object]) -> list[object]:
    await asyncio.sleep(0.002)
    return records


async def _measure(seconds: float) -> _Seen:
    pipeline = (
        Pipeline("soak", checkpoint={"path": "state.db", "interval": 0.5}, on_failure="skip")
        | sources.Generate(record={"n": "n", "key": "n % 1000", "text": "'some text of a record that is not long'"})
        | processors.Filter("n % 10 != 3")
        | processors.Call(_odd)
        | batchers.Adaptive(target_latency=0.1, max_size=2_000)
        | processors.Call(_waits, name="waits", batch=True, concurrency=2)
        | Metered(rate=_RATE)
    )
    supervisor = pipeline.supervisor()
    samples: list[_Sample] = []
    reports: list[Report] = []

    async def run_it() -> None:
        reports.append(await supervisor.run())

    async with anyio.create_task_group() as group:
        group.start_soon(_sample, supervisor, seconds, samples)
        group.start_soon(run_it)
    (report,) = reports
    warm = samples[len(samples) // 5 :]
    tenth = max(len(warm) // 10, 1)
    return _Seen(
        read=report.account.read,
        grown=round(_middle(warm[-tenth:], "resident") - _middle(warm[:tenth], "resident")),
        largest=max(sample.resident for sample in warm),
        state_grown=round(_middle(warm[-tenth:], "state") - _middle(warm[:tenth], "state")),
        descriptors=_spread(warm, "descriptors"),
        threads=_spread(warm, "threads"),
        tasks=_spread(warm, "tasks"),
        outcome=report.outcome,
        unsettled=report.account.unsettled,
    )


async def _sample(supervisor: Supervisor, seconds: float, samples: list[_Sample]) -> None:
    ends = anyio.current_time() + seconds
    while anyio.current_time() < ends:
        await anyio.sleep(min(0.5, seconds / 40))
        samples.append(
            _Sample(
                resident(),
                _state_size(),
                _entries("/proc/self/fd"),
                _entries("/proc/self/task"),
                len(asyncio.all_tasks()),
            )
        )
    supervisor.drain()


def _state_size() -> int:
    return sum(path.stat().st_size for path in Path().glob("state.db*"))


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _middle(samples: list[_Sample], name: str) -> float:
    return median(int(getattr(sample, name)) for sample in samples)


def _spread(samples: list[_Sample], name: str) -> int:
    """Return how far most samples lie apart: one in a hundred at either end may be a moment of change."""
    values = sorted(int(getattr(sample, name)) for sample in samples)
    few = len(values) // 100
    return values[len(values) - 1 - few] - values[few]


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(asdict(asyncio.run(_measure(float(sys.argv[1])))))}\n")
