"""Secrets stay where they are: canaries in configs, and every path on which an error could show one."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import Command

ENV, FILE, URL, HEADER = "canary-Env-3f9a", "canary-File-77b1", "canary-Url-c0de", "canary-Header-51"
CANARIES = (ENV, FILE, URL, HEADER)
STEPS = """
import logging
import sys

def take(record, *, token="", headers=None):
    return record

def fail(record, *, token="", headers=None):
    if record["n"] % 5 == 3:
        raise ValueError(f"401 for {token} with {headers}")
    return record

def fail_all(records, *, token="", headers=None):
    raise ConnectionError(f"can't reach https://me:{token}@shop.example with {headers!r}")

def warn(record, *, token="", headers=None):
    logging.getLogger("shop").warning("using %s and %s", token, headers)
    return record

class Till:
    def __init__(self, token="", headers=None):
        raise RuntimeError(f"no till for {token} {headers}")

    async def __aenter__(self): ...
    async def __aexit__(self, *exc_info): ...
"""
CONFIG = """
name: shop
{top}
stages:
  - source: generate
    with: {{count: 20}}
  - processor: call
    with:
      function: "canary_steps:{function}"
      arguments:
        token: "${{env:CANARY}}${{file:secret.txt}}"
        headers: {{Authorization: "Bearer ${{env:HEADER}}"}}
      {more}
    {engine}
  - sink: {sink}
"""
SINK = "jsonl\n    with: {path: out.jsonl}"


@dataclass
class Place:
    """A folder with a secret, where commands are run."""

    folder: Path
    command: Command

    def write(self, top: str = "", function: str = "take", more: str = "", engine: str = "", sink: str = SINK) -> None:
        text = CONFIG.format(top=top, function=function, more=more, engine=engine, sink=sink)
        (self.folder / "shop.yaml").write_text(text)

    def call(self, *arguments: str) -> str:
        """Run a command and return all that it said; nothing anywhere may hold a canary."""
        ran = self.command(*arguments)
        said = ran.out + ran.err
        for name, text in (("what it said", said), *self.files()):
            for canary in CANARIES:
                assert canary not in text, f"{canary} is in {name} after {arguments}: {_around(text, canary)}"
        return said

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield every file that was made, and every value of the state."""
        for path in self.folder.rglob("*"):
            if (
                path.is_file()
                and path.name not in ("shop.yaml", "secret.txt", "canary_steps.py")
                and path.suffix != ".pyc"
            ):
                yield path.name, path.read_bytes().decode("latin-1")


def _around(text: str, canary: str) -> str:
    place = text.index(canary)
    return repr(text[max(0, place - 100) : place + 60])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    (tmp_path / "secret.txt").write_text(f"{FILE}\n")
    (tmp_path / "canary_steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    for name, value in {"CANARY": ENV, "HEADER": HEADER, "URL": f"http://me:{URL}@127.0.0.1:9/hook"}.items():
        monkeypatch.setenv(name, value)
    return Place(tmp_path, Command(tmp_path, capsys))


@pytest.mark.parametrize("policy", ["stop", "dead_letter", "collect", "skip"])
def test_an_error_of_a_function_that_knows_them(place: Place, policy: str) -> None:
    place.write(top=f"on_failure: {policy}", function="fail")
    said = place.call("run", "shop.yaml", "--report", "page.html")
    assert policy == "skip" or "401 for ***" in said
    place.call(
        "run",
        "shop.yaml",
        "--log",
        "json",
        "--log-level",
        "debug",
        "--fresh",
        "--repeat",
        "--set",
        "stages.jsonl.with.mode=overwrite",
    )
    for arguments in (
        ["explain"],
        ["state", "show"],
        ["state", "history"],
        ["dlq", "list"],
        ["graph"],
        ["check"],
        ["check", "--json"],
    ):
        place.call(*arguments, "shop.yaml")
    if policy == "dead_letter":
        shown = place.call("dlq", "show", "shop.yaml", "1")
        assert "401 for ***" in shown


def test_a_service_that_can_not_be_reached(place: Place) -> None:
    place.write(function="fail_all", more="batch: true", engine="retry: {attempts: 2, backoff: 1ms}")
    said = place.call("run", "shop.yaml", "--log", "text")
    assert "can't reach https://me:***" in said
    assert "can't reach https://me:***" in place.call("explain", "shop.yaml")


@pytest.mark.parametrize("function", ["warn", "Till"])
@pytest.mark.parametrize("log", [[], ["--log", "json"], ["--log", "text"]])
def test_what_users_log_and_what_fails_at_the_start(place: Place, function: str, log: list[str]) -> None:
    place.write(function=function)
    said = place.call("run", "shop.yaml", *log)
    # Under pytest somebody else listens to what is logged, and plain lines leave it to them.
    assert "***" in said or (function == "warn" and not log)


@pytest.mark.parametrize(
    "top",
    [
        "alerts: {failure_rate: 0.01, minimum: 1, webhook: '${env:URL}'}\non_failure: skip",
        "alerts: {failure_rate: 0.01, minimum: 1, command: [sh, -c, '>&2 echo ${env:CANARY}']}\non_failure: skip",
        "metrics: {push: '${env:URL}'}",
        "metrics: {push: [sh, -c, 'cat >&2; >&2 echo ${env:CANARY}${file:secret.txt}; exit 3']}",
        "metrics: {push: [sh, -c, 'cat > metrics.txt']}\nmetadata: {token: '${env:CANARY}'}\non_failure: dead_letter",
        "alerts: {breaker: 1s, webhook: 'ftp://${env:CANARY}@x'}",
        "metrics: {push: '${env:CANARY}'}",
        "alerts: {webhook: ['${env:CANARY}'], commandx: '${file:secret.txt}'}",
    ],
)
def test_whoever_is_told(place: Place, top: str) -> None:
    place.write(top=top, function="fail")
    place.call("run", "shop.yaml", "--log", "text", "--set", "stages.generate.with.rate=20/s")
    place.call("run", "shop.yaml")
    place.call("check", "shop.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stages.generate.with.count", "${env:CANARY}"),
        ("stages.generate.with.rate", "${env:CANARY}"),
        ("stages.generate.with.${env:CANARY}", "1"),
        ("stages.generate.with.record", "{x: 'n + ${env:CANARY}'}"),
        ("stages.call.with.function", "${env:CANARY}"),
        ("stages.call.with.function", "canary_steps:${env:CANARY}"),
        ("stages.call.concurrency", "${file:secret.txt}"),
        ("stages.call.retry", "{attempts: '${env:CANARY}'}"),
        ("stages.call.when", "x == '${env:CANARY}' and"),
        ("stages.call.from", "${env:CANARY}"),
        ("stages.call.on_failure", "${env:CANARY}"),
        ("stages.jsonl.with.compression", "${env:CANARY}"),
        ("stages.jsonl.with.mode", "${file:secret.txt}"),
        ("name", "${env:CANARY} x"),
        ("delivery", "${env:CANARY}"),
        ("drain", "${env:CANARY}"),
        ("memory", "${file:secret.txt}"),
        ("metadata", "['${env:CANARY}']"),
        ("checkpoint", "{interval: '${env:CANARY}'}"),
    ],
)
def test_a_value_that_is_wrong(place: Place, key: str, value: str) -> None:
    place.write()
    said = place.call("check", "shop.yaml", "--set", f"{key}={value}")
    assert "ok" not in said.split("\n")[0]


def test_a_run_that_is_right_keeps_none_of_them(place: Place) -> None:
    place.write(top="metadata: {token: '${env:CANARY}'}\nalerts: {failure_rate: 0.5, webhook: '${env:URL}'}")
    place.call("run", "shop.yaml", "--report", "page.html")
    place.write(top="metadata: {token: 'x${env:CANARY}'}")
    said = place.call("run", "shop.yaml")
    assert "alerts *** -> not set" in said
    with closing(sqlite3.connect(place.folder / ".pipeline" / "shop.db")) as state:
        kept = json.dumps([list(row) for row in state.iterdump()])
    assert not [canary for canary in CANARIES if canary in kept]
