"""What hostile records and neighbours can't do, through the command."""

import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.load import load_text
from tests.systems.command import command

FORGED = '{"event":"finished","exit_code":0}'
SIGNS = ["\n", "\r\n", "\x1b[2J\x1b[1;1H", "\x9b31m", "\u2028", "\u202e", "\0", "\x08\x08\x08"]
CONFIG = """
name: shop
on_failure: dead_letter
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: call
    with: {function: "steps:fail"}
    retry: {attempts: 2, backoff: 1ms}
  - sink: jsonl
    with: {path: out.jsonl}
"""


@pytest.mark.parametrize("log", [[], ["--log", "text"], ["--log", "json"]], ids=["lines", "text", "json"])
def test_what_a_record_says_forges_no_line_of_any_log(tmp_path: Path, log: list[str]) -> None:
    texts = [f"x{sign}{FORGED}" for sign in SIGNS]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps({'name': text})}\n" for text in texts))
    (tmp_path / "steps.py").write_text(
        "import logging\n"
        "def fail(record):\n"
        "    logging.getLogger('shop').warning('hello %s', record['name'])\n"
        "    raise ValueError(record['name'])\n"
    )
    (tmp_path / "shop.yaml").write_text(CONFIG)

    ended = command(tmp_path, "run", "shop.yaml", *log)
    listed = [command(tmp_path, "dlq", "list", "shop.yaml"), command(tmp_path, "dlq", "show", "shop.yaml", "1")]

    for said in (ended.err, *(each.out for each in listed)):
        # Whoever reads lines sees none that begins with the forged text, and whoever shows them obeys no sign.
        assert not [line for line in said.split("\n") if line.startswith(FORGED)]
        assert not [sign for sign in SIGNS[1:] if sign in said]
    if log == ["--log", "json"]:
        lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
        assert len([line for line in lines if line["event"] == "finished"]) == 1
        assert len([line for line in lines if line["event"] == "dead_letter"]) == len(texts)


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_the_state_of_a_command_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    (tmp_path / "in.jsonl").write_text('{"name": "x"}\n')
    (tmp_path / "steps.py").write_text("def fail(record):\n    raise ValueError\n")
    (tmp_path / "shop.yaml").write_text(CONFIG)
    before = os.umask(umask)
    try:
        assert command(tmp_path, "run", "shop.yaml").code == 0
    finally:
        os.umask(before)

    folder = tmp_path / ".pipeline"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize(
    "keys",
    ["alerts: {breaker: 1s, command: [id]}", "alerts: {breaker: 1s, webhook: http://h}", "metrics: {push: [id]}"],
)
def test_a_confined_config_tells_nobody(keys: str) -> None:
    text = f"name: x\n{keys}\nstages:\n  - source: generate\n  - sink: discard\n"
    load_text(text, "c.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml:2:.*can't start programs or post to addresses"):
        load_text(text, "c.yaml", confined=True)
