"""Functions that another process finds by their names."""

import os
import sys
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec

from pipeline.batch import Failed, Many
from pipeline.errors import Unavailable


class Typed(msgspec.Struct):
    day: date


@dataclass
class Where:
    process: int
    result: Any


class Peculiar(Exception):
    """Can't be made again from its arguments."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


def somewhere(record: Any) -> Any:
    return Where(os.getpid(), record)


def results(records: list[Any], factor: int, keys: list[str]) -> list[Any]:
    return [
        None,
        Many([records[1] * factor, keys[1]]),
        Failed(records[2], Peculiar(7, "odd")),
        Failed(records[3], ValueError("bad")),
    ]


def fail(record: str) -> Any:
    raise {"peculiar": Peculiar(7, "odd"), "away": Unavailable("away", 1.5), "value": ValueError("bad")}[record]


def end(record: Any) -> Any:
    os._exit(3)


def leave(record: Any) -> Any:
    sys.exit("enough")


async def waits(record: Any) -> Any:
    return record
