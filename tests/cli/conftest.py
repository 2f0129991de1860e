from pathlib import Path

import pytest

from tests.cli.commands import Command


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)
