"""A state file that is damaged, foreign or of another time is refused and stays as it was."""

import hashlib
import os
import resource
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import anyio
import pytest

from pipeline.errors import StateError, StorageError
from pipeline.settle.cut import Cut
from pipeline.settle.schema import VERSION
from pipeline.settle.state import edit_state
from pipeline.settle.view import open_view
from tests.settle.states import change, cut_at, letter, opened

pytestmark = pytest.mark.anyio

_LAST = cut_at(9, counters={"read": 9})


async def _write(path: Path) -> None:
    async with opened(path) as state:
        for number in range(9):
            await state.save(cut_at(number, letters=[letter(number)], changes=[change(number, number, number)]))
        await state.save(_LAST)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file after a clean stop."""
    path = tmp_path_factory.mktemp("good") / "x.db"
    anyio.run(_write, path)
    return path


@pytest.fixture(scope="module")
def unclean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state file after a kill: most of it is in the -wal."""
    path = tmp_path_factory.mktemp("unclean") / "x.db"

    async def write() -> None:
        async with opened(path) as state:
            await state.save(cut_at(8, letters=[letter(number) for number in range(200)]))  # makes the file grow
            await state.save(_LAST)
            for name in ("x.db", "x.db-wal"):
                shutil.copy(path.with_name(name), path.with_name(f"{name}.copy"))

    anyio.run(write)
    for name in ("x.db", "x.db-wal"):
        path.with_name(f"{name}.copy").rename(path.with_name(name))
    return path


def _files(path: Path) -> dict[str, str]:
    """Return what is in the folder, by hash, without the lock."""
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest()
        for each in path.parent.iterdir()
        if not each.name.endswith(".lock")
    }


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def _refused(path: Path, match: str | None = None, **options: object) -> str:
    before = _files(path)
    with pytest.raises(StateError, match=match) as refused:
        async with opened(path, **options):
            pass
    assert _files(path) == before
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 5
    return str(refused.value)


async def _refused_or_whole(path: Path) -> bool:
    """Open a damaged file; tell whether it was refused. If not, it must go on from the last cut."""
    before = _files(path)
    try:
        async with opened(path) as state:
            found: Cut | None = state.cut
    except StateError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        assert _files(path) == before
        return True
    assert found == _LAST
    return False


async def test_a_file_cut_at_any_sector_is_refused(good: Path, tmp_path: Path) -> None:
    content = _content(good)
    path = tmp_path / "x.db"
    for length in range(0, len(content), 512):
        path.write_bytes(content[:length])
        assert await _refused_or_whole(path), length


async def test_a_file_with_flipped_bytes_is_refused_or_goes_on_from_the_last_cut(good: Path, tmp_path: Path) -> None:
    content = _content(good)
    chance = Random(4)
    path = tmp_path / "x.db"
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 1, 4, 100])):
            damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        refused += await _refused_or_whole(path)
    assert refused > 20


async def test_each_byte_of_the_notes_and_the_current_cut_is_watched(good: Path, tmp_path: Path) -> None:
    content = _content(good)
    with closing(sqlite3.connect(good)) as connection:
        lineage = connection.execute("SELECT value FROM meta WHERE key = 'lineage'").fetchone()[0]
        current = connection.execute("SELECT content FROM cuts ORDER BY id DESC LIMIT 1").fetchone()[0]
    path = tmp_path / "x.db"
    for text in (f"lineage{lineage}", current):
        at = content.index(text.encode())
        for offset in range(at, at + len(text), 5):
            damaged = bytearray(content)
            damaged[offset] ^= 1
            path.write_bytes(damaged)
            assert await _refused_or_whole(path), text


@pytest.mark.parametrize("table", ["letters", "changes", "runs", "named"])
async def test_damage_in_a_table_that_is_not_read_at_the_start_is_seen_too(
    good: Path, tmp_path: Path, table: str
) -> None:
    with closing(sqlite3.connect(good)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    damaged = bytearray(_content(good))
    damaged[(root - 1) * size : (root - 1) * size + 8] = b"\xff" * 8
    path = tmp_path / "x.db"
    path.write_bytes(damaged)
    await _refused(path, "corrupt")


async def test_after_a_kill_the_wal_counts(unclean: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for name in ("x.db", "x.db-wal"):
        shutil.copy(unclean.with_name(name), tmp_path)
    assert (tmp_path / "x.db-wal").stat().st_size > 0
    async with opened(path) as state:
        assert state.cut == _LAST


async def test_a_kill_while_pages_move_from_the_wal_into_the_file_loses_nothing(tmp_path: Path) -> None:
    first, whole, torn = (tmp_path / name / "x.db" for name in ("first", "whole", "torn"))
    for path in (whole, torn):
        path.parent.mkdir()
    async with opened(first) as state:
        await state.save(cut_at(300, letters=[letter(number) for number in range(300)]))
        last = (await state.cuts())[0]
        for path in (whole, torn):
            shutil.copy(first, path)
            shutil.copy(f"{first}-wal", f"{path}-wal")
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Only the first page has come: it says that there are more than there are.
    page = 4096
    assert whole.stat().st_size > torn.stat().st_size > page
    torn.write_bytes(_content(whole)[:page] + _content(torn)[page:])
    async with opened(torn) as state:
        assert (await state.cuts())[0] == last


async def test_a_refused_file_with_a_wal_is_left_as_it_was(unclean: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for name in ("x.db", "x.db-wal"):
        shutil.copy(unclean.with_name(name), tmp_path)
    await _refused(path, "not of 'y'", pipeline="y")
    os.truncate(path, 100)
    await _refused(path, "corrupt")
    await _refused(path, "corrupt", fresh=True)


async def test_an_empty_file_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    assert "restore it from a backup, or move it aside" in await _refused(path, "is empty")


async def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("not a database, and long enough to hold a header of one hundred bytes\n" * 10)
    await _refused(path, "corrupt.*restore it from a backup, or move it aside")
    path.write_text("short")
    await _refused(path)


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_a_database_of_somebody_else_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE meta (key, value)")
        connection.commit()
        await _refused(path, "not a state file")
        await _refused(path, "not a state file", fresh=True)


async def test_a_newer_state_is_refused(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    await _refused(path, f"newer version .format {VERSION + 1}")


@pytest.mark.parametrize("old, new", [("ended REAL", "ende$ REAL"), ("UNIQUE (sink, path)", "UNIQUE (sink, parh)")])
async def test_declarations_that_a_disk_has_changed_are_refused(good: Path, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "x.db"
    content = _content(good)
    assert content.count(old.encode()) == 1
    _put(path, content.replace(old.encode(), new.encode()))
    await _refused(path, "corrupt")


async def test_the_state_of_another_pipeline_is_refused(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    await _refused(path, "pipeline 'x', not of 'y'", pipeline="y")
    await _refused(path, "pipeline 'x', not of 'y'", pipeline="y", fresh=True)


async def test_other_stages_are_refused_without_a_trace(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    await _refused(path, "source 'csv' is gone", fingerprint={})


async def test_a_file_with_two_names_is_refused(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(good, path)
    os.link(path, tmp_path / "second.db")
    await _refused(path, "2 hard links")


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.mkdir()
    with pytest.raises(StateError, match="no regular file"):
        async with opened(path):
            pass


async def test_a_wal_without_its_file_is_refused(unclean: Path, tmp_path: Path) -> None:
    shutil.copy(unclean.with_name("x.db-wal"), tmp_path)
    await _refused(tmp_path / "x.db", "its -wal is there")


@pytest.mark.parametrize("left", range(8))
async def test_too_few_file_descriptors_are_no_fault_of_the_state(unclean: Path, left: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in taken[len(taken) - left :]:
            os.close(descriptor)
        del taken[len(taken) - left :]
        try:
            async with opened(unclean):
                pass
        except StorageError as error:
            assert "too many open files" in str(error) and "`ulimit -n`" in str(error)
        else:
            assert left > 3
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(StateError, match="can't be opened"):
        async with opened(Path("/proc/nowhere/x.db")):
            pass


async def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("taken").write_text("a file")
    with pytest.raises(StateError, match="taken is no folder"):
        async with opened(tmp_path / "taken" / "x.db"):
            pass


async def test_looking_and_editing_need_a_file_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no state file here"):
        async with open_view(tmp_path / "none" / "x.db"):
            pass
    with pytest.raises(StateError, match="no state file here"):
        async with edit_state(tmp_path / "none" / "x.db", pipeline="x"):
            pass
    assert os.listdir(tmp_path) == []


async def test_looking_at_what_is_no_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("text " * 100)
    with pytest.raises(StateError):
        async with open_view(path):
            pass
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(StateError, match="not a state file"):
        async with open_view(path):
            pass
