import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.sinks.syncs import Syncs


def meanwhile(monkeypatch: pytest.MonkeyPatch, path: Path, happens: Callable[[Path], None]) -> None:
    """Let something happen once, right before a folder is made."""
    mkdir, left = os.mkdir, [happens]

    def make(name: str, *rest: Any) -> None:
        if Path(name) == path and left:
            left.pop()(path)
        mkdir(name, *rest)

    monkeypatch.setattr(os, "mkdir", make)


def test_a_folder_is_made_although_the_one_around_it_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "around" / "inner"
    inner.parent.mkdir()
    meanwhile(monkeypatch, inner, lambda path: Path.rmdir(path.parent))
    Syncs().make_folder(str(inner))
    assert inner.is_dir()


def test_a_folder_that_another_makes_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "around" / "inner"
    mkdir = os.mkdir
    meanwhile(monkeypatch, inner.parent, mkdir)
    Syncs().make_folder(str(inner))
    assert inner.is_dir()


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "around" / "inner"
    meanwhile(monkeypatch, inner.parent, Path.touch)
    with pytest.raises(FileExistsError):
        Syncs().make_folder(str(inner))


def test_a_folder_that_is_taken_away_each_time_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str, *rest: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", name)

    monkeypatch.setattr(os, "mkdir", never)
    with pytest.raises(FileNotFoundError, match="inner"):
        Syncs().make_folder(str(tmp_path / "inner"))
