"""How many calls of Python and C functions a pipeline makes for a record more: a cost that no clock can blur."""

import asyncio
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from pipeline import Pipeline

__all__ = ("calls_per_record",)

_FEW, _MANY = 2000, 6000
_TURNS = 2


def calls_per_record(recipe: Callable[[int], Pipeline]) -> float:
    """Return the calls for each record more; ``recipe`` makes the pipeline for so many records.

    What a run costs that has nothing to read is left out. Waits fall differently each time: the fewest calls count.
    """
    _calls(recipe(_FEW))  # what is imported or compiled first
    few, many = (min(_calls(recipe(records)) for _ in range(_TURNS)) for records in (_FEW, _MANY))
    return (many - few) / (_MANY - _FEW)


def _calls(pipeline: Pipeline) -> int:
    seen = [0]

    def count(frame: FrameType, happened: str, value: Any) -> None:
        if happened in ("call", "c_call"):
            seen[0] += 1

    before = sys.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        asyncio.run(pipeline.run())
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return seen[0]
