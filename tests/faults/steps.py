"""Functions of the pipelines under test; lies beside each config under this name."""

import asyncio
import time
from typing import Any

from pipeline.batch import Many

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
