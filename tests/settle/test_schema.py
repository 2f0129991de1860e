"""A state file of an older schema is brought up to date, and kept as it was beside it."""

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.settle.schema import VERSION, migrate
from tests.settle.states import cut_at, letter, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def older(tmp_path: Path) -> Path:
    """Return a state file of version 1 that holds a letter."""
    path = tmp_path / "x.db"
    async with opened(path) as state:
        await state.save(cut_at(3, letters=[letter(1)]))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE letters DROP COLUMN letter")
        connection.execute("PRAGMA user_version = 1")
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


async def test_an_older_state_is_migrated_and_a_copy_of_it_kept_for_us_alone(older: Path) -> None:
    async with opened(older) as state:
        assert state.cut is not None and state.cut.sources["csv"].number == 3
    kept = older.with_name("x.db.v1")
    assert (version_of(older), version_of(kept)) == (VERSION, 1)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM letters").fetchone() == (1,)


async def test_what_a_killed_migration_left_of_its_copy_is_replaced(older: Path) -> None:
    older.with_name(".x.db.v1.new").write_bytes(b"half")
    async with opened(older):
        pass
    assert not older.with_name(".x.db.v1.new").exists()
    assert version_of(older.with_name("x.db.v1")) == 1


async def test_a_state_of_this_version_is_not_copied(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(tmp_path / "x.db"):
            pass
    assert {name for name in os.listdir(tmp_path) if ".v" in name} == set()


def test_a_migration_in_memory_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        connection.execute("ALTER TABLE letters DROP COLUMN letter")
        connection.execute("PRAGMA user_version = 1")
        migrate(connection)
    assert not list(tmp_path.iterdir())
