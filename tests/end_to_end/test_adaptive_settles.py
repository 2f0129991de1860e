"""Adaptive batches on the real event loop: they find their size, and a run that was killed goes on with it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import anyio

from pipeline import Pipeline
from stages import batchers, processors, sinks, sources

RECORDS = 12_000
TARGET = 0.06


async def taken(records: list[Any]) -> list[Any]:
    """Take 5 ms a batch and 0.05 ms a record."""
    await asyncio.sleep(0.005 + 0.00005 * len(records))
    return records


def told(event: str, fields: Mapping[str, Any]) -> None:
    """Print what is said of batches, for the parent to read."""
    if event == "batch":
        print(json.dumps({"size": fields["size"], "limit": fields["limit"]}), flush=True)


async def copy(folder: Path) -> None:
    """Copy a file of records through adaptive batches, with a checkpoint every 50 ms."""
    pipeline = (
        Pipeline("copy", checkpoint={"path": str(folder / "state.db"), "interval": "50ms"})
        | sources.Jsonl(path=str(folder / "in.jsonl"))
        | batchers.Adaptive(target_latency=TARGET)
        | processors.Call(taken, batch=True)
        | sinks.Jsonl(path=str(folder / "out.jsonl"))
    )
    await pipeline.run(subscribers=[told])


def start(folder: Path) -> "subprocess.Popen[str]":
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.end_to_end.test_adaptive_settles", str(folder)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_the_first_batch_after_kill_9_has_the_size_that_was_learned(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(RECORDS)))
    seen: list[dict[str, int]] = []
    with start(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(json.loads(line))
            # Settled for long enough that a checkpoint, every second batch or so, has it.
            if sum(batch["size"] for batch in seen) > RECORDS / 2:
                os.killpg(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with start(tmp_path) as again:
        assert again.stdout is not None
        resumed = [json.loads(line) for line in again.stdout]
    assert again.returncode == 0
    assert seen[0]["size"] == 1
    # The last checkpoint had the limit of one of the last batches.
    recent = [batch["limit"] for batch in seen[-15:]]
    assert min(recent) > 20
    assert min(recent) <= resumed[0]["size"] <= max(recent)
    written = [json.loads(line)["n"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == list(range(RECORDS))


def test_batches_grow_to_what_the_target_allows_on_the_real_loop() -> None:
    batches: list[dict[str, Any]] = []

    async def run() -> None:
        pipeline = (
            Pipeline("settles", checkpoint="none")
            | sources.Generate(count=15_000)
            | batchers.Adaptive(target_latency=TARGET)
            | processors.Call(taken, batch=True)
            | sinks.Discard()
        )
        await pipeline.run(
            subscribers=[lambda event, fields: batches.append(dict(fields)) if event == "batch" else None]
        )

    anyio.run(run)
    settled = batches[len(batches) // 2 : -1]
    # A record waits for one batch and is in the next: twice 5 ms and 0.05 ms a record, and a loaded machine's share.
    assert 50 < median(batch["size"] for batch in settled) <= (TARGET / 2 - 0.005) / 0.00005
    assert median(batch["waited"] + batch["seconds"] for batch in settled) <= TARGET


def test_five_records_a_second_hardly_wait_on_the_real_loop() -> None:
    latencies: list[float] = []

    def hear(event: str, fields: Mapping[str, Any]) -> None:
        if event == "batch":
            latencies.append(fields["waited"] + fields["seconds"])

    async def run() -> None:
        pipeline = (
            Pipeline("idle", checkpoint="none")
            | sources.Generate(rate=5.0, count=11)
            | batchers.Adaptive(target_latency=0.2)
            | processors.Call(taken, batch=True)
            | sinks.Discard()
        )
        await pipeline.run(subscribers=[hear])

    anyio.run(run)
    assert len(latencies) == 11
    assert median(latencies) < 0.2 * 0.2
    assert max(latencies) < 0.2


if __name__ == "__main__":
    asyncio.run(copy(Path(sys.argv[1])))
