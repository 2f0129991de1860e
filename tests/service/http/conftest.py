from pathlib import Path

import pytest

from tests.cli.commands import Command


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in an empty directory."""
    folder = tmp_path / "command"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return Command(folder, capsys)
