"""The delays of a year of flights: the run that the guarantees are quoted for. The data is not in the repository."""

import csv
import gzip
import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.faults.records import Ident, jsonl_records, rows, table
from tests.faults.scenario import Output, Scenario

__all__ = ("flights",)

_CONFIG = """\
name: delays
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
stages:
  - source: csv
    with: {path: flights.csv.gz, null_values: ["NA"], types: {dep_delay: float, distance: int}}
  - processor: filter
    with: {where: "dep_delay is not None and dep_delay > 15"}
  - batcher: fixed
    with: {size: 500}
"""
_JSONL = """\
  - sink: jsonl
    with: {path: out.jsonl}
"""
_SQLITE = """\
  - sink: sqlite
    with: {path: out.db, table: delays}
"""
_KEY = ("month", "day", "carrier", "flight", "origin", "sched_dep_time", "tailnum")


def flights(data: Path) -> tuple[Scenario, Scenario]:
    """Return the run into JSON lines and the one into SQLite, over the compressed file at a path."""
    expected = cache(partial(_delayed, data))
    lines = Output(
        lambda folder: jsonl_records(folder / "out.jsonl"),
        lambda count: expected(),
        image=lambda folder: (folder / "out.jsonl").read_bytes(),
        ident=_key,
    )
    table_rows = Output(
        lambda folder: rows(folder / "out.db", "delays"),
        lambda count: expected(),
        image=lambda folder: table(folder / "out.db", "delays"),
        ident=_key,
    )
    prepare = partial(_link, data)
    return (
        Scenario("flights-jsonl", prepare, {"out": lines}, _CONFIG + _JSONL),
        Scenario("flights-sqlite", prepare, {"out": table_rows}, _CONFIG + _SQLITE),
    )


def _link(data: Path, folder: Path, count: int) -> None:
    (folder / "flights.csv.gz").write_bytes(data.read_bytes())
    os.chmod(folder / "flights.csv.gz", 0o644)


def _delayed(data: Path) -> Sequence[Ident]:
    """Return the flights that left more than a quarter of an hour late, by means that are not ours."""
    with gzip.open(data, "rt", newline="") as text:
        return [_key(row) for row in csv.DictReader(text) if row["dep_delay"] != "NA" and float(row["dep_delay"]) > 15]


def _key(row: Mapping[str, Any]) -> Ident:
    return tuple(str(row[name]) if row[name] is not None else "NA" for name in _KEY)
