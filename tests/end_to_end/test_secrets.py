"""Secrets stay where they are: canaries put into configs in every way, and every path on which an error could show one."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    with: {{function: "steps:{function}", arguments: {{token: "${{env:CANARY}}${{file:secret.txt}}", headers: {{Authorization: "Bearer ${{env:HEADER}}"}}}}{more}}}
    {engine}
  - sink: {sink}
"""
SINK = "jsonl\n    with: {path: out.jsonl}"


@dataclass
class Place:
    """A folder with a secret, where commands are run."""

    folder: Path

    def write(self, top: str = "", function: str = "take", more: str = "", engine: str = "", sink: str = SINK) -> None:
        text = CONFIG.format(top=top, function=function, more=more, engine=engine, sink=sink)
        (self.folder / "shop.yaml").write_text(text)

    def call(self, *arguments: str) -> str:
        """Run a command and return all that it said; nothing anywhere may hold a canary."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE__")}
        environ |= {"CANARY": ENV, "HEADER": HEADER, "URL": f"http://me:{URL}@127.0.0.1:9/hook"}
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = ended.stdout + ended.stderr
        assert "Traceback (most recent call last)" not in said
        for name, text in (("what it said", said), *self.files()):
            for canary in CANARIES:
                assert canary not in text, f"{canary} is in {name} after {arguments}: {_around(text, canary)}"
        return said

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield every file that was made, and every value of the state."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.name not in ("shop.yaml", "secret.txt", "steps.py") and path.suffix != ".pyc":
                yield path.name, path.read_bytes().decode("latin-1")


def _around(text: str, canary: str) -> str:
    place = text.index(canary)
    return repr(text[max(0, place - 100) : place + 60])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "secret.txt").write_text(f"{FILE}\n")
    (tmp_path / "steps.py").write_text(STEPS)
    return Place(tmp_path)


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
    place.write(function="fail_all", more=", batch: true", engine="retry: {attempts: 2, backoff: 1ms}")
    said = place.call("run", "shop.yaml", "--log", "text")
    assert "can't reach https://me:***" in said
    assert "can't reach https://me:***" in place.call("explain", "shop.yaml")


@pytest.mark.parametrize("function", ["warn", "Till"])
@pytest.mark.parametrize("log", ["json", "text"])
def test_what_users_log_and_what_fails_at_the_start(place: Place, function: str, log: str) -> None:
    place.write(function=function)
    said = place.call("run", "shop.yaml", "--log", log)
    assert "***" in said


@pytest.mark.parametrize(
    "top",
    [
        "alerts: {failure_rate: 0.01, minimum: 1, webhook: '${env:URL}'}\non_failure: skip",
        "alerts: {failure_rate: 0.01, minimum: 1, command: [sh, -c, 'echo ${env:CANARY} >&2; exit 3']}\non_failure: skip",
        "metrics: {push: '${env:URL}'}",
        "metrics: {push: [sh, -c, 'cat >&2; echo ${env:CANARY}${file:secret.txt} >&2; exit 3']}\nmetadata: {token: '${env:CANARY}'}",
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
        ("stages.call.with.function", "steps:${env:CANARY}"),
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


def test_no_process_shows_them_and_the_run_that_is_right_keeps_none(place: Place) -> None:
    place.write(top="metadata: {token: '${env:CANARY}'}\nalerts: {failure_rate: 0.5, webhook: '${env:URL}'}")
    place.call("run", "shop.yaml", "--report", "page.html")
    place.write(top="metadata: {token: 'x${env:CANARY}'}")
    said = place.call("run", "shop.yaml")
    assert "metadata" in said
    with sqlite3.connect(place.folder / ".pipeline" / "shop.db") as state:
        kept = json.dumps([list(row) for row in state.iterdump()])
    assert not [canary for canary in CANARIES if canary in kept]
