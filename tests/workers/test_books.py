# ruff: noqa: ASYNC240  what is under test removes files, and so may its test
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.plan.load import load
from pipeline.workers.books import Books
from tests.cli.commands import TO_JSONL

pytestmark = pytest.mark.anyio


def books_in(folder: Path) -> Books:
    (folder / "c.yaml").write_text(TO_JSONL)
    topology = load(folder / "c.yaml", overrides=[f"checkpoint.path={folder / 'state.db'}"]).topology
    state: Any = SimpleNamespace(lineage="0123456789abcdef")
    return Books(topology, state)


async def test_an_empty_folder_is_what_a_kill_left(tmp_path: Path) -> None:
    books = books_in(tmp_path)
    books.state_of(0).parent.mkdir(parents=True)
    await books.clear_leftovers(0)
    assert not list(tmp_path.glob("*partitions*"))


async def test_the_folder_stays_while_others_may_be_about_to_open_their_state_in_it(tmp_path: Path) -> None:
    books = books_in(tmp_path)
    path = books.state_of(0)
    path.parent.mkdir(parents=True)
    path.touch()
    await books.forget_state(0)
    assert not path.exists() and path.parent.is_dir()
    await books.remove_folders()
    assert not list(tmp_path.glob("*partitions*"))


@pytest.mark.parametrize("after", range(4))
async def test_a_state_that_is_half_taken_away_is_known_by_its_file(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = books_in(tmp_path)
    path = books.state_of(0)
    path.parent.mkdir(parents=True)
    for name in ("", ".lock", "-wal"):
        Path(f"{path}{name}").touch()
    (path.parent / f".{path.name}.12.new").touch()
    gone: list[Path] = []
    unlink = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if len(gone) == after:
            raise InterruptedError
        gone.append(self)
        unlink(self, missing_ok)

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(Path, "unlink", killed)
        await books.forget_state(0)

    assert path.exists()
    await books.forget_state(0)
    await books.remove_folders()
    assert not list(tmp_path.glob("*partitions*"))
