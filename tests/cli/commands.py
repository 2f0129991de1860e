"""The command, called in this process or as a process of its own."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.cli.main import invoke
from pipeline.cli.signals import Stopped

TO_JSONL = """\
name: copy
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 10}
  - sink: jsonl
    name: out
    with: {path: out.jsonl}
"""
"""Copies ``in.jsonl`` to ``out.jsonl``."""


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Command:
    """Calls commands in a directory."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capture = capture

    def __call__(self, *arguments: str) -> Ran:
        """Call it in this process."""
        self._capture.readouterr()
        try:
            code = invoke(arguments)
        except Stopped as stopped:
            code = stopped.code
        said = self._capture.readouterr()
        assert "Traceback" not in said.err
        return Ran(code, said.out, said.err)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        self.directory.joinpath(name).write_text(text)

    def read(self, name: str) -> str:
        """Return what is in a file."""
        return self.directory.joinpath(name).read_text()


def fail(command: Command, check: str, before: str) -> None:
    """Write ``copy.yaml``, which dead-letters what ``check`` raises for, before the stage of this role; and its input.

    That is 15 records, ``a`` from 0 on, and a line that is no JSON.
    """
    command.write("work.py", check)
    command.write("in.jsonl", "".join(f'{{"a": {number}}}\n' for number in range(15)) + "nonsense\n")
    config = TO_JSONL.replace("name: copy", "name: copy\non_failure: dead_letter")
    called = "  - processor: call\n    with: {function: 'work:check'}\n"
    command.write("copy.yaml", config.replace(f"  - {before}", f"{called}  - {before}"))


def letters(command: Command, *options: str) -> list[dict[str, Any]]:
    """Return the dead letters of ``copy.yaml`` as ``dlq list`` tells them."""
    return [json.loads(line) for line in command("dlq", "list", "copy.yaml", "--json", *options).out.splitlines()]


def start(
    directory: Path, *arguments: str, stdout: int | IO[bytes] = subprocess.DEVNULL, new_group: bool = False
) -> "subprocess.Popen[str]":
    """Start the command as a process of its own; what it says on standard error is piped."""
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=directory,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=new_group,
    )


def wait_for(process: "subprocess.Popen[str]", text: str) -> str:
    """Return what a process says on standard error up to a line with this text."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"ended without saying {text!r}: {said}")


def wait_for_file(path: Path) -> None:
    """Wait until a process has written something to a file."""
    deadline = time.monotonic() + 20
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, f"{path} stays empty"
        time.sleep(0.01)


def ending(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code of a process and what it says until its end."""
    _, said = process.communicate(timeout=20)
    assert "Traceback" not in said
    return process.returncode, said
