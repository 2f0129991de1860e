"""A state file as a run would find it, looked at by one that only tries."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import LockedError, StateError
from pipeline.settle.preview import preview_state
from pipeline.settle.state import StateFile
from pipeline.stage import NamedFile
from tests.settle.states import FINGERPRINT, cut_at, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "x.db"


def previewed(path: Path, **options: Any) -> AbstractAsyncContextManager[StateFile]:
    given: dict[str, Any] = {"pipeline": "x", "fingerprint": FINGERPRINT, **options}
    return preview_state(path, **given)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_it_stands_where_the_next_run_will_and_leaves_all_as_it_was(path: Path) -> None:
    async with opened(path) as state:
        await state.announce("out", [NamedFile("out.jsonl", {"n": 1})])
        await state.save(cut_at(7))
    before = contents(path.parent)
    async with previewed(path) as state:
        assert state.cut is not None and state.cut.sources["csv"].number == 7
        assert state.run == 2
        assert [file.path for file in await state.named("out")] == ["out.jsonl"]
    assert contents(path.parent) == before
    async with previewed(path, fresh=True) as state:
        assert (state.cut, state.run) == (None, 1)
    assert contents(path.parent) == before
    async with opened(path) as state:
        assert state.run == 2


async def test_where_there_is_none_it_makes_none(path: Path) -> None:
    async with previewed(path) as state:
        assert (state.cut, state.run) == (None, 1)
        assert await state.named("out") == []
        assert await state.count_letters() == 0
    assert not path.parent.exists()


async def test_a_state_that_is_held_is_refused(path: Path) -> None:
    async with opened(path):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            async with previewed(path):
                pass
    async with previewed(path), opened(path):
        pass


async def test_what_a_run_refuses_it_refuses(path: Path) -> None:
    async with opened(path):
        pass
    others = {**FINGERPRINT, "csv": {"role": "source", "path": "b.csv"}}
    with pytest.raises(StateError, match="--accept-changes"):
        async with previewed(path, fingerprint=others):
            pass
    async with previewed(path, fingerprint=others, accept_changes=True) as state:
        assert state.changed
    with pytest.raises(StateError, match="pipeline 'x', not of 'y'"):
        async with previewed(path, pipeline="y"):
            pass
