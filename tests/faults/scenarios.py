"""The pipelines that are killed: every way in which records travel, batch and settle."""

import csv
import gzip
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from sqlite3 import connect
from typing import Any

import anyio
import msgspec

from pipeline.settle.view import open_view
from tests.faults.records import Ident, ident, jsonl_records, made, rows, table, write_csv, write_gzips, write_jsonl
from tests.faults.scenario import Output, Scenario

__all__ = ("SCENARIOS",)

_HEAD = """\
name: kills
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
"""


def _jsonl(folder: Path, count: int) -> None:
    write_jsonl(folder / "in.jsonl", map(made, range(count)))


def _compact(folder: Path, count: int) -> None:
    """Write lines of which only some fields need be decoded, but for one in seventy."""
    lines = [json.dumps(made(n), separators=(", ", ": ") if n % 70 == 3 else (",", ":")) for n in range(count)]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")


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


def _sources(folder: Path, count: int) -> None:
    for rest, name in enumerate(("even", "odd")):
        write_jsonl(folder / f"{name}.jsonl", map(made, range(rest, count, 2)))


def _database(folder: Path, count: int) -> None:
    with closing(connect(folder / "in.db")) as connection:
        connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, key TEXT, crc INTEGER, pad TEXT)")
        connection.executemany("INSERT INTO records VALUES (:seq, :key, :crc, :pad)", map(made, range(count)))
        connection.commit()


def _side(number: Ident) -> Hashable:
    return number % 2 if isinstance(number, int) else None


def _by_key(folder: Path) -> Iterator[Mapping[str, Any]]:
    return jsonl_records(*sorted((folder / "out").iterdir()))


def _good(count: int) -> Sequence[Ident]:
    return [number for number in range(count) if number % 11 != 5]


def _bad(count: int) -> Sequence[Ident]:
    return range(5, count, 11)


def _letters(folder: Path) -> list[Mapping[str, Any]]:
    async def read() -> list[Mapping[str, Any]]:
        async with open_view(folder / "state.db") as view:
            return [letter.record for letter in await view.letters(limit=100_000)]

    return anyio.run(read)


def _compressed(folder: Path) -> Iterator[Mapping[str, Any]]:
    with gzip.open(folder / "out.csv.gz", "rt", newline="") as text:
        yield from csv.DictReader(text)


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

_APPENDED = """\
import asyncio
import sys

import steps

from pipeline import Pipeline
from pipeline.errors import PipelineError
from stages import batchers, processors, sources

composed = (
    Pipeline("kills", checkpoint={"path": "state.db", "interval": 0.05})
    | sources.Jsonl(path="in.jsonl")
    | batchers.Fixed(size=100)
    | processors.Call(steps.slow, batch=True)
    | steps.Appending(path="out.jsonl")
)
try:
    report = asyncio.run(composed.run())
except PipelineError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
sys.exit(report.exit_code)
"""


def _appended(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Read whole lines; a kill in the middle of a write tears the one behind them."""
    lines = (folder / "out.jsonl").read_bytes().splitlines() if (folder / "out.jsonl").exists() else []
    for line in lines:
        with suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=dict[str, Any])


def _since_checkpoint(folder: Path) -> int:
    """Return how many records are written and not yet in the last checkpoint: what may be repeated, by the promise."""

    async def settled() -> int:
        async with open_view(folder / "state.db") as view:
            return sum(
                point.number + sum(high - low for low, high in point.islands)
                for cut in await view.cuts(limit=1)
                for point in cut.sources.values()
            )

    if not (folder / "state.db").exists():
        return 0
    written = {ident(record) for record in _appended(folder)}
    return max(len(written) - anyio.run(settled), 0)


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
        "projected",
        _compact,
        {"out": Output(_out, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: filter
    with: {where: "seq >= 0"}
  - processor: map
    with: {set: {half: "seq / 2"}}
  - batcher: fixed
    with: {size: 100}
  - sink: jsonl
    with: {path: out.jsonl}
    rate_limit: {rate: 200/s, burst: 1, per: call}
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
    Scenario(
        "no_position",
        _jsonl,
        {"out": Output(_appended)},
        script=_APPENDED,
        at_risk=_since_checkpoint,
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
    Scenario(
        "merged",
        _sources,
        {"out": Output(_out, lane=_side)},
        _HEAD
        + """\
stages:
  - source: jsonl
    name: even
    with: {path: even.jsonl}
  - source: jsonl
    name: odd
    with: {path: odd.jsonl}
  - batcher: fixed
    from: [even, odd]
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "adaptive",
        _jsonl,
        {"out": Output(_out, image=_bytes)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: adaptive
    with: {target_latency: 40ms}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "letters",
        _jsonl,
        {"out": Output(_out, _good, image=_bytes), "letters": Output(_letters, _bad, lane=None)},
        _HEAD
        + """\
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - processor: call
    name: check
    with: {function: "steps:checked"}
    on_failure: dead_letter
  - sink: jsonl
    with: {path: out.jsonl}
""",
    ),
    Scenario(
        "files_by_key",
        _jsonl,
        {"out": Output(_by_key, lane=_key)},
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
    with: {path: "out/{key}.jsonl"}
""",
    ),
    Scenario(
        "from_sqlite",
        _database,
        {"out": Output(_compressed)},
        _HEAD
        + """\
stages:
  - source: sqlite
    with: {path: in.db, table: records, cursor: seq}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    with: {function: "steps:slow", batch: true}
  - sink: csv
    with: {path: out.csv.gz}
""",
    ),
    Scenario(
        "explode_unordered",
        _jsonl,
        {"out": Output(_rows, _exploded, lane=None)},
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
    with: {function: "steps:waits", batch: true}
    concurrency: 4
    ordered: false
  - sink: sqlite
    with: {path: out.db, table: records}
""",
    ),
)
