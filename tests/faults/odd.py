"""Functions that do what no function should while a file named ``broken`` is there; lies beside the configs."""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipeline.errors import Unavailable

Records = list[dict[str, Any]]
_AT = 700


def _broken(seq: int) -> bool:
    return seq >= _AT and Path("broken").exists()


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """Do nothing odd."""
    return record


def raises(record: dict[str, Any]) -> dict[str, Any]:
    """Raise what functions raise."""
    if _broken(record["seq"]):
        raise KeyError("no such airport")
    return record


def raises_base(record: dict[str, Any]) -> dict[str, Any]:
    """Raise what is no Exception."""
    if _broken(record["seq"]):
        raise BaseException("of my own")
    return record


def exits(record: dict[str, Any]) -> dict[str, Any]:
    """End the program, or so it believes."""
    if _broken(record["seq"]):
        sys.exit(0)
    return record


def interrupts(record: dict[str, Any]) -> dict[str, Any]:
    """Raise what a terminal would."""
    if _broken(record["seq"]):
        raise KeyboardInterrupt
    return record


def stops_iteration(record: dict[str, Any]) -> dict[str, Any]:
    """Let a StopIteration out."""
    if _broken(record["seq"]):
        next(iter(()))
    return record


def recurses(record: dict[str, Any]) -> dict[str, Any]:
    """Call itself for ever."""
    return recurses(record) if _broken(record["seq"]) else record


def wants_memory(record: dict[str, Any]) -> dict[str, Any]:
    """Ask for more memory than there is."""
    if _broken(record["seq"]):
        bytearray(2**62)
    return record


async def cancels_itself(record: dict[str, Any]) -> dict[str, Any]:
    """Raise a cancellation that nobody asked for."""
    if _broken(record["seq"]):
        raise asyncio.CancelledError
    return record


async def raises_later(record: dict[str, Any]) -> dict[str, Any]:
    """Fail behind an await."""
    await asyncio.sleep(0)
    return raises(record)


async def leaks(record: dict[str, Any]) -> dict[str, Any]:
    """Leave a task behind that never ends, and fail."""
    if _broken(record["seq"]):
        _LEAKED.append(asyncio.ensure_future(asyncio.sleep(3600)))
    return raises(record)


def leaks_thread(record: dict[str, Any]) -> dict[str, Any]:
    """Leave a thread behind, and fail."""
    if _broken(record["seq"]):
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return raises(record)


def too_few(records: Records) -> Records:
    """Return less than it was given."""
    return records[1:] if _broken(records[-1]["seq"]) else records


def too_many(records: Records) -> Records:
    """Return more than it was given."""
    return [*records, records[0]] if _broken(records[-1]["seq"]) else records


def no_list(records: Records) -> Any:
    """Return something else."""
    return 7 if _broken(records[-1]["seq"]) else records


def nothing(records: Records) -> Any:
    """Return None for a batch."""
    return None if _broken(records[-1]["seq"]) else records


async def hangs(records: Records) -> Records:
    """Wait for ever."""
    if _broken(records[-1]["seq"]):
        await asyncio.sleep(3600)
    return records


async def hangs_on(records: Records) -> Records:
    """Wait for ever, and again when it is cancelled, a few times."""
    for _ in range(3 if _broken(records[-1]["seq"]) else 0):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return records


def blocks(records: Records) -> Records:
    """Block the loop for two seconds a batch."""
    if _broken(records[-1]["seq"]):
        time.sleep(2)
    return records


def sleeps(records: Records) -> Records:
    """Block, in a thread."""
    if _broken(records[-1]["seq"]):
        time.sleep(8)
    return records


async def away(records: Records) -> Records:
    """Be out of reach."""
    if _broken(records[-1]["seq"]):
        raise Unavailable("connection refused")
    return records


def dies(record: dict[str, Any]) -> dict[str, Any]:
    """End the process at once."""
    if _broken(record["seq"]):
        os._exit(9)
    return record


_LEAKED: list[Any] = []
