"""What the README tells its reader to write and to type is so."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli.main import cli
from tests.cli.commands import Command

ROOT = Path(__file__).parents[2]
TEXT = ROOT.joinpath("README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)

SHOP = "class Closed(Exception):\n    pass\n\n\nasync def send(records):\n    return records\n"
ALARM = "def ring(letter, attempts):\n    pass\n"
WEATHER = """\
name: delays
stages:
  - source: csv
    with: {path: flights.csv}
    on_failure: skip
  - processor: filter
    with: {where: "dep_delay > 15"}
  - processor: call
    name: weather
    with: {function: "shop:send", batch: true}
    retry: {attempts: 3, backoff: 1s..2s}
    on_failure: dead_letter
  - sink: sqlite
    with: {path: delays.db, table: delays}
"""


def block(kind: str, text: str) -> str:
    """Return the one block of a kind that holds a text."""
    (found,) = [each for of, each in BLOCKS if of == kind and text in each]
    return found


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, where a reader is: in a checkout."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    tmp_path.joinpath("shop.py").write_text(SHOP)
    tmp_path.joinpath("alarm.py").write_text(ALARM)
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def account() -> str:
    (line,) = [each.strip() for of, each in BLOCKS if not of and each.startswith("read ")]
    return line


def test_the_first_pipeline_ends_with_the_account_that_is_shown(command: Command) -> None:
    command.write("delays.yaml", block("yaml", "name: delays\ndelivery"))
    assert command("check", "delays.yaml").code == 0
    ran = command("run", "delays.yaml")
    assert ran.code == 0
    assert account() in ran.err


def test_the_first_pipeline_in_python_has_the_same_account(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(block("python", 'Pipeline("delays")'), "README.md", "exec")
    exec(code, {"__name__": "__main__"})  # what the README says must run as it stands
    assert account() in capsys.readouterr().out


def test_the_pipeline_that_is_served_passes_the_check(command: Command) -> None:
    command.write("tasks.yaml", block("yaml", "source: inlet"))
    ran = command("check", "tasks.yaml")
    assert ran.err == ""
    assert ran.code == 0


def test_keys_about_failures_alerts_and_dead_letters_pass_the_check(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_URL", "http://localhost:9/alerts")
    whole = (
        "name: shop\n"
        + block("yaml", "failure_rate")
        + block("yaml", "on_dead_letter")
        + "stages:\n  - source: csv\n    with: {path: configs/data/flights.csv}\n"
        + block("yaml", "circuit_breaker")
        + "  - sink: jsonl\n    with: {path: out.jsonl}\n"
    )
    command.write("shop.yaml", whole)
    ran = command("check", "shop.yaml")
    assert ran.err == ""
    assert ran.code == 0


def test_the_cases_pass(command: Command) -> None:
    command.write("delays.yaml", WEATHER)
    command.write("delays.tests.yaml", block("yaml", "cases:"))
    ran = command("test", "delays.yaml")
    assert ran.code == 0, ran.out + ran.err


def typed() -> Iterator[list[str]]:
    """Yield the words of each `pipeline` command in a console block."""
    for kind, text in BLOCKS:
        lines = [line[2:] for line in text.splitlines() if kind == "console" and line.startswith("$ ")]
        for line in lines:
            for part in re.split(r"&&|;", line):
                words = shlex.split(part, comments=True)
                if words[:1] == ["pipeline"]:
                    yield words[1:]


@pytest.mark.parametrize("words", [*typed()], ids=" ".join)
def test_a_command_that_is_shown_has_these_options(words: list[str]) -> None:
    context = click.Context(cli)
    found: click.Command = cli
    while isinstance(found, click.Group):
        inner = found.get_command(context, words[0])
        assert inner is not None, words[0]
        found, words = inner, words[1:]
    known = {option for each in found.params for option in each.opts}
    assert [word for word in words if word.startswith("-") and word not in known] == []


def test_every_command_is_in_the_readme() -> None:
    names = cli.list_commands(click.Context(cli)) if isinstance(cli, click.Group) else []
    assert names
    assert [name for name in names if f"pipeline {name}" not in TEXT] == []


def test_keys_about_workers_are_the_pipelines(command: Command) -> None:
    keys = re.findall(r"`((?:workers|partition|merge): \w+)`", TEXT)
    assert len({key.partition(":")[0] for key in keys}) == 3
    command.write("delays.yaml", "\n".join(sorted(set(keys))) + "\n" + block("yaml", "name: delays\ndelivery"))
    ran = command("check", "delays.yaml")
    assert ran.err == ""
    assert ran.code == 0
