"""Dead letters that are replayed end once, whatever happens meanwhile: real processes that are really killed."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import invoke

WORK = """\
import asyncio, os, signal
from pipeline import Many

def check(records):
    for record in records:
        if record["n"] % 3 == 0 and os.path.exists("broken"):
            raise ValueError(f"bad {record['n']}")
    return records

async def split(record):
    if os.path.exists("die") and record["n"] == int(open("die").read()):
        os.remove("die")
        # What came before is written, and in a checkpoint if there is one soon.
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return Many([{**record, "part": part} for part in "ab"])
"""
FILES = """\
name: replayed
on_failure: dead_letter
checkpoint: {interval: 20ms}
stages:
  - source: jsonl
    name: in
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 2, linger: 5ms}
  - processor: call
    with: {function: "work:check", batch: true}
  - processor: call
    name: split
    with: {function: "work:split"}
"""
SINKS = {
    "file": "  - sink: jsonl\n    name: out\n    with: {path: out.jsonl}\n",
    "database": "  - sink: sqlite\n    name: out\n    with: {path: out.db, table: t}\n",
}
COUNT = 24
WRITTEN = sorted((n, part) for n in range(COUNT) for part in "ab")


class Folder:
    """A pipeline in a folder, and the command there: in this process, or in one of its own where it is killed."""

    def __init__(self, path: Path, sink: str, capture: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capture = capture
        self.write("work.py", WORK)
        self.write("in.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(COUNT)))
        self.write("p.yaml", FILES + SINKS[sink])

    def write(self, name: str, text: str = "") -> None:
        self.path.joinpath(name).write_text(text)

    def remove(self, name: str) -> None:
        self.path.joinpath(name).unlink()

    def killed(self, *arguments: str) -> None:
        """Run a command that kills itself on the way."""
        command = [sys.executable, "-m", "pipeline", *arguments]
        ran = subprocess.run(command, cwd=self.path, capture_output=True, text=True, timeout=30, check=False)
        assert ran.returncode == -9, ran.stderr

    def __call__(self, *arguments: str) -> str:
        """Run a command that ends well; return what it says."""
        self._capture.readouterr()
        code = invoke(arguments)
        said = self._capture.readouterr()
        assert code == 0, said.err
        return said.out + said.err

    def written(self) -> list[tuple[int, str]]:
        if self.path.joinpath("out.db").exists():
            with closing(sqlite3.connect(self.path / "out.db")) as connection:
                return sorted(connection.execute("SELECT n, part FROM t").fetchall())
        lines = self.path.joinpath("out.jsonl").read_text().splitlines()
        return sorted((record["n"], record["part"]) for record in map(json.loads, lines))

    def letters(self) -> list[dict[str, Any]]:
        said = self("dlq", "list", "p.yaml", "--json")
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


@pytest.fixture(params=sorted(SINKS))
def new(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Folder:
    """A pipeline that never ran."""
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, request.param, capsys)


@pytest.fixture
def folder(new: Folder) -> Folder:
    """A pipeline whose first run left every third record as a dead letter, and whose cause is mended since."""
    new.write("broken")
    new("run", "p.yaml")
    assert len(new.letters()) == 8
    new.remove("broken")
    return new


@pytest.mark.parametrize("interval", ["20ms", "1h"])
def test_a_replay_that_is_killed_and_started_again_gives_each_letter_to_the_sink_once(
    folder: Folder, interval: str
) -> None:
    folder.write("die", "15")
    folder.killed("dlq", "replay", "p.yaml", "--set", f"checkpoint.interval={interval}")
    assert len(folder.letters()) == (8 if interval == "1h" else 4)
    folder("dlq", "replay", "p.yaml")
    assert folder.letters() == []
    assert folder.written() == WRITTEN


def test_a_run_between_two_halves_of_a_replay_spoils_nothing(folder: Folder) -> None:
    folder.write("die", "15")
    folder.killed("dlq", "replay", "p.yaml")
    with folder.path.joinpath("in.jsonl").open("a") as lines:
        lines.write('{"n": 100}\n')
    assert "read 1 = written 1 " in folder("run", "p.yaml")
    folder("dlq", "replay", "p.yaml")
    assert folder.letters() == []
    assert folder.written() == [*WRITTEN, (100, "a"), (100, "b")]


def test_letters_replayed_a_few_at_a_time_in_any_order_end_once_each(folder: Folder) -> None:
    folder.write("die", "21")
    folder.killed("dlq", "replay", "p.yaml", "--id", "7", "--id", "8", "--set", "checkpoint.interval=1h")
    for chosen in (["--id", "5"], ["--id", "2", "--id", "8"], ["--error", "bad 3"], []):
        folder("dlq", "replay", "p.yaml", *chosen)
    assert folder.letters() == []
    assert folder.written() == WRITTEN


def test_a_record_that_failed_before_a_crash_and_succeeds_after_it_is_in_one_place(new: Folder) -> None:
    new.write("broken")
    new.write("die", "14")
    new.killed("run", "p.yaml")
    new.remove("broken")
    new("run", "p.yaml")
    letters = [(letter["record"]["n"], part) for letter in new.letters() for part in "ab"]
    assert sorted([*new.written(), *letters]) == WRITTEN
    assert all(n < 14 for n, _ in letters)


def test_a_record_that_was_written_before_a_crash_and_fails_after_it_is_in_one_place(new: Folder) -> None:
    # One checkpoint at the end: what was written before the crash is in none.
    new.write("p.yaml", new.path.joinpath("p.yaml").read_text().replace("20ms", "1h"))
    new.write("die", "14")
    new.killed("run", "p.yaml")
    new.write("broken")
    new("run", "p.yaml")
    letters = [(letter["record"]["n"], part) for letter in new.letters() for part in "ab"]
    assert letters
    assert sorted([*new.written(), *letters]) == WRITTEN


def test_a_letter_that_only_some_sinks_had_when_the_replay_was_killed_reaches_the_others_alone(folder: Folder) -> None:
    config = folder.path.joinpath("p.yaml").read_text()
    folder.write(
        "p.yaml", f"{config}  - sink: jsonl\n    name: plain\n    from: call\n    with: {{path: plain.jsonl}}\n"
    )
    folder("run", "p.yaml", "--accept-changes")
    folder.write("die", "15")
    folder.killed("dlq", "replay", "p.yaml")
    folder("run", "p.yaml")
    folder("dlq", "replay", "p.yaml")
    assert folder.written() == WRITTEN
    plain = [json.loads(line)["n"] for line in folder.path.joinpath("plain.jsonl").read_text().splitlines()]
    assert sorted(plain) == list(range(0, COUNT, 3))
