"""Functions of the pipelines under test; lies beside each config under this name."""

import asyncio
import json
import os
import time
from typing import Any

from pipeline.batch import Batch, Many
from pipeline.stage import Sink, SinkContext, Writer

Records = list[dict[str, Any]]


def slow(records: Records) -> Records:
    """Take a few milliseconds a batch, so that a run is long enough to be killed anywhere."""
    time.sleep(0.004)
    return records


async def waits(records: Records) -> Records:
    """Take longer for some batches than for others, so that they overtake each other."""
    await asyncio.sleep(0.002 + records[0]["seq"] * 7919 % 13 / 1000)
    return records


def parts(record: dict[str, Any]) -> Many:
    """Make 1 to 7 records of one."""
    return Many([{**record, "part": part} for part in range(record["seq"] % 7 + 1)])


def slower(records: Records) -> Records:
    """Hold up one of two sinks."""
    time.sleep(0.003)
    return records


def checked(record: dict[str, Any]) -> dict[str, Any]:
    """Refuse one record of eleven."""
    if record["seq"] % 11 == 5:
        raise ValueError("one of eleven")
    return record


class Appending(Sink, kw_only=True):
    """What a user writes in five minutes: it appends lines to a file, and can't say how far it has come."""

    path: str

    async def open(self, context: SinkContext) -> Writer:
        return _Appending(self.path)


class _Appending(Writer):
    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # a torn last line of a run that was killed

    async def write(self, batch: Batch) -> None:
        os.write(self._fd, b"".join(json.dumps(record).encode() + b"\n" for record in batch.records))

    async def close(self) -> None:
        os.close(self._fd)
