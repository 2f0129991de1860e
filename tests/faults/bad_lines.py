"""Ten thousand bad lines of every sort among good ones: each is a dead letter with its place, and spoils no other."""

import json
import random
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.verify.audit import Audit, audit
from pipeline.verify.child import Child, run
from tests.faults.records import ident, jsonl_records, made
from tests.faults.row import Row

__all__ = ("Mixed", "mix_csv", "mix_jsonl", "read_mixed")

_CONFIG = """\
name: bad
on_failure: dead_letter
max_record: 4KiB
delivery: exactly_once
checkpoint: {path: state.db, interval: 50ms}
stages:
  - source: %s
    with: %s
  - batcher: fixed
    with: {size: 100}
  - sink: jsonl
    with: {path: out.jsonl}
"""

_JSON = (
    b"{",
    b'{"seq": 1, "key": "k1"',
    b"not json at all",
    b'{"seq": 1} {"seq": 2}',
    b'{"seq": 1,}',
    b"{'seq': 1}",
    b'{"seq": NaN}',
    b'{"seq": "\xff\xfe"}',
    b'{"seq": "\x00"}',
    b"\x00\x00\x00",
    b'{"seq": 01}',
    b"\xff\xfe{\x00}\x00",
    b'{"seq": "\\ud8"}',
    b"[" * 3000,
    b'{"seq": "' + b"x" * 5000 + b'"}',
)
_ROWS = (
    b"1",
    b"1,k1,2",
    b"1,k1,2,pad,more",
    b"one,k1,2,pad",
    b"1,k1,2.5,pad",
    b"1,k1,,pad,",
    b'"1,k1,2,pad',
    b'1,"k"1,2,pad',
    b"1,k\xff,2,pad",
    b"1,k\x00,2,",
    b"\x00",
    b"1;k1;2;pad",
    b"1,k1,2," + b"x" * 5000,
)


@dataclass(frozen=True, slots=True)
class Mixed:
    """An input with bad lines: ``places`` has the line of each, counted from 1, and its byte offset."""

    name: str
    config: str
    content: bytes
    good: int
    places: Mapping[int, int]


def mix_jsonl(bad: int, good: int, seed: int) -> Mixed:
    """Mix bad lines into JSON lines."""
    lines = [json.dumps(made(number)).encode() for number in range(good)]
    return _mixed("jsonl", "{path: in.jsonl}", b"", lines, _JSON, bad, seed)


def mix_csv(bad: int, good: int, seed: int) -> Mixed:
    """Mix bad rows into CSV. Quoted fields among the good ones are there to be spoiled by a quote that is open."""
    lines = [_row(number) for number in range(good)]
    options = "{path: in.csv, types: {seq: int, crc: int}}"
    return _mixed("csv", options, b"seq,key,crc,pad\n", lines, _ROWS, bad, seed)


def read_mixed(mixed: Mixed, folder: Path, row: Row, label: str, kill_after: float | None = None) -> None:
    """Run over the input, killed once on the way if asked, and compare records and letters with what was mixed."""
    started = time.monotonic()
    folder.mkdir(parents=True)
    (folder / f"in.{mixed.name}").write_bytes(mixed.content)
    (folder / "pipeline.yaml").write_text(mixed.config)
    arguments = ["-m", "pipeline", "run", "pipeline.yaml"]
    if kill_after is not None:
        child = Child(folder, arguments)
        ended = child.wait(kill_after) or child.kill()
        row.count("killed" if ended.code == -signal.SIGKILL else "too late")
    ended = run(folder, arguments)
    problem = "" if ended.code == 0 and not ended.traced else f"exit {ended.code}: {ended.said[-500:]}"
    found = audit(range(mixed.good), map(ident, jsonl_records(folder / "out.jsonl")))
    found.add(_letters(mixed, folder))
    row.check(label, found, problem)
    row.seconds += time.monotonic() - started


def _letters(mixed: Mixed, folder: Path) -> Audit:
    limit = str(2 * len(mixed.places) + 100)
    said = run(folder, ["-m", "pipeline", "dlq", "list", "pipeline.yaml", "--json", "--limit", limit]).said
    letters = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    places = [re.fullmatch(r"in\.\w+:(\d+) \(byte (\d+)\)", letter["position"]) for letter in letters]
    found = [(int(place[1]), int(place[2])) if place is not None else None for place in places]
    return audit(list(mixed.places.items()), found, lane=None)


def _mixed(
    name: str, options: str, head: bytes, lines: list[bytes], sorts: tuple[bytes, ...], bad: int, seed: int
) -> Mixed:
    chance = random.Random(f"{seed}/{name}")
    kinds = [True] * len(lines) + [False] * bad
    chance.shuffle(kinds)
    content, places, good = [head], dict[int, int](), iter(lines)
    offset, line = len(head), head.count(b"\n")
    for is_good in kinds:
        text = next(good) if is_good else chance.choice(sorts)
        line += 1
        if not is_good:
            places[line] = offset
        content.append(text + b"\n")
        offset += len(text) + 1
    return Mixed(name, _CONFIG % (name, options), b"".join(content), len(lines), places)


def _row(number: int) -> bytes:
    record = made(number)
    pad = str(record["pad"]).replace('"', '""')
    return f'{record["seq"]},{record["key"]},{record["crc"]},"{pad}"'.encode()
