"""The pipelines that are killed: every way in which records travel, batch and settle."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.audit import Ident
from tests.faults.records import ident, jsonl_records, made, rows, table, write_csv, write_gzips, write_jsonl
from tests.faults.scenario import Output, Scenario

__all__ = ("SCENARIOS",)

_HEAD = """\
name: kills
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
"""


def _jsonl(folder: Path, count: int) -> None:
    write_jsonl(folder / "in.jsonl", map(made, range(count)))


def _csv(folder: Path, count: int) -> None:
    write_csv(folder / "in.csv", count)


def _doubled(folder: Path, count: int) -> None:
    """Write each record again and again, some right behind, some far behind."""
    with_repeats = [number for first in range(count // 2) for number in (first, first // 3)]
    write_jsonl(folder / "in.jsonl", map(made, with_repeats))


def _out(folder: Path) -> Iterator[Mapping[str, Any]]:
    return jsonl_records(folder / "out.jsonl")


def _bytes(folder: Path) -> object:
    return (folder / "out.jsonl").read_bytes()


def _table(folder: Path) -> object:
    return table(folder / "out.db", "records")


def _rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    return rows(folder / "out.db", "records")


def _parts(folder: Path) -> Iterator[Mapping[str, Any]]:
    return jsonl_records(*sorted((folder / "out").iterdir()))


def _exploded(count: int) -> Sequence[Ident]:
    return [(number, part) for number in range(count) for part in range(number % 7 + 1)]


def _halves(count: int) -> Sequence[Ident]:
    return range(count // 2)


def _key(number: Ident) -> Hashable:
    return number % 7 if isinstance(number, int) else None


def _branch(number: Ident) -> Hashable:
    return number % 3 if isinstance(number, int) else None


def _branched(record: Mapping[str, Any]) -> Ident:
    """Return the number of a record that took the branch that it had to; None otherwise."""
    number = ident(record)
    return number if isinstance(number, int) and record["way"] == _WAYS.get(number % 3) else None


_WAYS = {0: "left", 1: "right", 2: "right"}

_COMPOSED = """\
import asyncio
import sys

import steps

from pipeline import Pipeline
from pipeline.errors import PipelineError
from stages import batchers, processors, sinks, sources

composed = (
    Pipeline("kills", delivery="exactly_once", checkpoint={"path": "state.db", "interval": 0.05})
    | sources.Jsonl(path="in.jsonl")
    | batchers.Fixed(size=100)
    | processors.Call(steps.slow, batch=True)
    | sinks.Jsonl(path="out.jsonl")
)
try:
    report = asyncio.run(composed.run())
except PipelineError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
sys.exit(report.exit_code)
"""

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "jsonl",
        _jsonl,
        {"out": Output(_out, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "sqlite",
        _csv,
        {"out": Output(_rows, image=_table)},
        _HEAD
        + """\
stages:
  - source: csv
    with: {path: in.csv, types: {seq: int, crc: int}}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: sqlite
    with: {path: out.db, table: records}
""",
    ),
    Scenario(
        "gzips",
        write_gzips,
        {"out": Output(_out, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: "in-*.jsonl.gz"}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "concurrency",
        _jsonl,
        {"out": Output(_out, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 50}
  - processor: call
    with: {function: "steps:waits", batch: true}
    concurrency: 4
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "unordered",
        _jsonl,
        {"out": Output(_rows, lane=None)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 50}
  - processor: call
    with: {function: "steps:waits", batch: true}
    concurrency: 4
    ordered: false
  - sink: sqlite
    with: {path: out.db, table: records}
""",
    ),
    Scenario(
        "two_sinks",
        _jsonl,
        {"fast": Output(_out, image=_bytes), "slow": Output(_rows, image=_table)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - sink: jsonl
    from: fixed
    with: {path: out.jsonl}
  - processor: call
    from: fixed
    with: {function: "steps:slow", batch: true}
  - sink: sqlite
    with: {path: out.db, table: records}
""",
    ),
    Scenario(
        "explode",
        _jsonl,
        {"out": Output(_out, _exploded, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: explode
    with: {function: "steps:parts"}
  - batcher: fixed
    with: {size: 250}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "explode_sqlite",
        _jsonl,
        {"out": Output(_rows, _exploded, image=_table)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: explode
    with: {function: "steps:parts"}
  - batcher: fixed
    with: {size: 250}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: sqlite
    with: {path: out.db, table: records}
""",
    ),
    Scenario(
        "dedupe",
        _doubled,
        {"out": Output(_out, _halves, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: dedupe
    with: {by: seq}
  - batcher: fixed
    with: {size: 50}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "keyed",
        _jsonl,
        {"out": Output(_out, lane=_key)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100, by: key}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "zstd_parts",
        _jsonl,
        {"out": Output(_parts)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out/part.jsonl.zst, roll: {size: 20KB}}
""",
    ),
    Scenario("python", _jsonl, {"out": Output(_out, image=_bytes)}, script=_COMPOSED),
    Scenario(
        "branches",
        _jsonl,
        {"out": Output(_out, lane=_branch, ident=_branched)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - processor: map
    name: left
    from: fixed
    when: "seq % 3 == 0"
    with: {set: {way: "'left'"}}
  - processor: map
    name: right
    from: fixed
    when: otherwise
    with: {set: {way: "'right'"}}
  - processor: call
    from: [left, right]
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
)
