import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.init import TEMPLATES
from tests.cli.commands import Command


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_written_runs_with_the_command_that_is_told(
    command: Command, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("init", template, "a folder").out
    entering, _, following = said.splitlines()[-1].removeprefix("next: ").partition(" && ")
    assert entering == "cd 'a folder'"
    program, *arguments = shlex.split(following)
    monkeypatch.chdir("a folder")
    if program == "pipeline":
        assert command("check", arguments[-1]).code == 0
        ran = command(*arguments)
        assert (ran.code, "read 200 = " in ran.err) == (0, True)
    else:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("read 200 = ")


@pytest.mark.parametrize("template", [name for name, each in TEMPLATES.items() if "pipeline.tests.yaml" in each.files])
def test_the_cases_that_are_written_pass(command: Command, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command("init", template, "new")
    monkeypatch.chdir("new")
    assert command("test", "pipeline.yaml").code == 0


def test_nothing_is_overwritten(command: Command) -> None:
    Path("quickstart").mkdir()
    command.write("quickstart/flights.csv", "mine")
    ran = command("init")
    assert ran.code == 2
    assert "quickstart/flights.csv: exists already" in ran.err
    assert command.read("quickstart/flights.csv") == "mine"
    assert not Path("quickstart/pipeline.yaml").exists()


def test_a_place_that_cannot_be_written_is_said(command: Command) -> None:
    command.write("file", "")
    ran = command("init", "quickstart", "file/below")
    assert ran.code == 2
    assert "can't be written" in ran.err


def test_the_templates_are_listed(command: Command) -> None:
    said = command("init", "--list").out
    assert all(name in said for name in TEMPLATES)
    assert command("init", "nope").code == 2
