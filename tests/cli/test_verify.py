"""``pipeline verify``: it acquits what keeps its promises, and convicts what does not."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import Command, Ran

STRANGERS = '''\
"""Sinks of strangers: an honest one, and three that are not what they say."""

import os
from typing import Annotated

from pipeline.stage import PositionWriter, Resume, Sink, Writer, key
import msgspec


class Honest(Sink):
    path: Annotated[str, key("File to append to.", file=True)]

    async def open(self, context):
        return Plain(self.path)


class Plain(Writer):
    def __init__(self, path):
        self._file = open(path, "ab", buffering=0)

    async def write(self, batch):
        self._file.write(b"".join(msgspec.json.encode(each) + b"\\n" for each in batch.records))

    async def close(self):
        self._file.close()


class Early(Honest):
    """Says that a batch is written while it still has it in hand."""

    async def open(self, context):
        return Late(self.path)


class Late(Plain):
    records = ()

    async def write(self, batch):
        self.records, before = list(batch.records), self.records
        self._file.write(b"".join(msgspec.json.encode(each) + b"\\n" for each in before))

    async def close(self):
        self._file.write(b"".join(msgspec.json.encode(each) + b"\\n" for each in self.records))
        self._file.close()


class Repeating(Honest):
    """Says that it goes back to its position, and does not."""

    def resumes(self):
        return Resume.POSITION

    async def open(self, context):
        return Positioned(self.path)


class Positioned(Plain, PositionWriter):
    def position(self):
        return {"length": os.fstat(self._file.fileno()).st_size}

    async def sync(self):
        os.fsync(self._file.fileno())


class Twice(Honest):
    """Writes some records twice, without any crash."""

    async def open(self, context):
        return Doubled(self.path)


class Doubled(Plain):
    async def write(self, batch):
        self._file.write(b"".join(msgspec.json.encode(each) + b"\\n" for each in [*batch.records, batch.records[0]]))
'''
CONFIG = """\
name: verified
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - sink: %s
    name: out
    with: {path: out.jsonl}
"""
RECORDS = 200


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have folders of broken runs made where pytest removes them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("scratch")))


def verify(command: Command, sink: str, runs: int, *more: str, beside: str = "") -> Ran:
    command.write("strangers.py", STRANGERS)
    command.write("verified.yaml", CONFIG % sink + beside)
    command.write("in.jsonl", "".join(json.dumps({"n": number}) + "\n" for number in range(2 * RECORDS)))
    return command("verify", "verified.yaml", "--records", str(RECORDS), "--runs", str(runs), "--seed", "1", *more)


def row(ran: Ran, sink: str = "out") -> list[str]:
    """Return the row of a sink in the table: promise, records, lost, repeated, reordered, verdict."""
    line = next(line for line in ran.out.splitlines() if line.startswith(f"{sink} "))
    return re.split(r"  +", line)[1:]


def test_what_cannot_be_verified_is_refused_before_anything_runs(command: Command) -> None:
    command.write(
        "verified.yaml",
        """\
name: verified
stages:
  - source: jsonl
    with: {path: "-"}
  - sink: stdout
""",
    )
    ran = command("verify", "verified.yaml")
    assert ran.code == 2
    assert ran.err == (
        "verified.yaml: there is no checkpoint, so every run starts anew and there is nothing to verify\n"
        "verified.yaml: stage 'jsonl' (source jsonl): can't be read twice; name a file with "
        "--set stages.jsonl.with.path=FILE\n"
    )


def test_a_pipeline_that_fails_unbroken_says_why(command: Command) -> None:
    command.write("verified.yaml", CONFIG % "jsonl" + "    when: 'n > 1'\n")
    command.write("in.jsonl", '{"n": "text"}\n')
    ran = command("verify", "verified.yaml")
    assert ran.code == 1
    assert ran.err.startswith("error: an unbroken run of the sample ends with 1: stage 'out' (sink jsonl): ")


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_several_sinks_and_dead_letters_are_each_judged_and_the_slowest_decides_what_may_come_again(
    command: Command,
) -> None:
    fan_out = """\
  - sink: 'strangers:Honest'
    name: plain
    from: jsonl
    with: {path: plain.jsonl}
  - sink: csv
    name: bad
    from: jsonl
    when: "n + 0 < 'x' if n == 3 else n > 100"
    on_failure: dead_letter
    with: {path: "out/{n}.csv"}
"""
    ran = verify(command, "sqlite", 3, "--set", "stages.out.with.table=t", beside=fan_out)
    assert ran.code == 0, ran.err
    assert [row(ran, name)[-1] for name in ("out", "plain", "bad", "dead letters")] == ["held"] * 4
    assert row(ran, "dead letters")[1] == "1"


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_built_in_sink_is_acquitted_and_nothing_of_the_users_is_touched(command: Command) -> None:
    ran = verify(command, "jsonl", 3)
    assert (ran.code, row(ran)) == (0, ["exactly once", "200", "0", "0", "0", "held"]), ran.err
    assert re.fullmatch(r"3 broken runs: .*, seed 1\n", ran.err)
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"in.jsonl", "strangers.py", "verified.yaml"}


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_an_honest_sink_may_repeat_within_its_bound(command: Command) -> None:
    ran = verify(command, "'strangers:Honest'", 2)
    promise, records, lost, repeated, _, verdict = row(ran)
    assert (ran.code, promise, records, lost, verdict) == (0, "at least once", "200", "0", "held"), ran.err
    found, _, allowed = repeated.partition(" of ")
    assert int(found) <= int(allowed)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_sink_that_acknowledges_before_it_writes_is_convicted(command: Command) -> None:
    ran = verify(command, "'strangers:Early'", 2)
    assert (ran.code, row(ran)[-1]) == (1, "BROKEN"), ran.err
    assert int(row(ran)[2]) > 0
    assert re.search(r"^run \d, killed .*: out: lost \d+", ran.err, re.MULTILINE)
    folder = re.search(
        r"repeat it: pipeline verify verified.yaml --seed 1 --runs 2 --records 200; its folders: (.*)", ran.err
    )
    assert folder is not None
    assert Path(folder[1]).is_dir()


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_sink_that_repeats_where_it_promised_not_to_is_convicted(command: Command) -> None:
    ran = verify(command, "'strangers:Repeating'", 3)
    assert (ran.code, row(ran)[0], row(ran)[-1]) == (1, "exactly once", "BROKEN"), ran.err
    assert int(row(ran)[3]) > 0


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_sink_that_repeats_without_any_crash_is_convicted_by_what_it_was_handed(command: Command) -> None:
    ran = verify(command, "'strangers:Twice'", 1)
    assert (ran.code, row(ran)[-1]) == (1, "BROKEN"), ran.err
    assert "an unbroken run wrote 240 records of 200: 40 are repeated" in ran.err
