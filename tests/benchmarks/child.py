"""One peer does one workload in this process, after a small one to warm up, and prints what it took as JSON."""

import gc
import json
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.contest import Measured, Own, Task, Workload
from tests.benchmarks.workloads import WORKLOADS

__all__ = ("measure",)


def measure(workload: Workload, name: str, records: int, inputs: Path) -> Measured:
    """Let a peer warm up with few records, and then take its time."""
    peer = next(peer for peer in workload.peers if peer.name == name)
    with TemporaryDirectory(dir=inputs) as warming, TemporaryDirectory(dir=inputs) as folder:
        peer.run(Task(workload.fewest, Path(warming), inputs))
        gc.unfreeze()
        gc.collect()
        began, processor = time.perf_counter(), _processor()
        answer = peer.run(Task(records * peer.times, Path(folder), inputs))
        seconds, processor = time.perf_counter() - began, _processor() - processor
        peak = _peak()
        if isinstance(answer, Own):
            return Measured(answer.seconds, processor, peak, answer.answer)
        if answer is None and workload.answer is not None:
            answer = workload.answer(Path(folder))
        assert answer is not None, f"{name} gave no answer"
        return Measured(seconds, processor, peak, answer)


def _processor() -> float:
    times = os.times()  # the processes that it started count as well
    return time.process_time() + times.children_user + times.children_system


def _peak() -> float:
    """Return the most memory that this process held so far, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


@contextmanager
def _aside() -> Generator[int]:
    """Send what peers print to standard error; yield where the result goes."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        yield out
    finally:
        os.close(out)


if __name__ == "__main__":
    with _aside() as out:
        measured = measure(WORKLOADS[sys.argv[1]], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
        os.write(out, json.dumps(asdict(measured)).encode())
