"""The state file while all is well, and what of it stays when a run is cut short."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from pipeline.errors import LockedError, StateError
from pipeline.settle import history
from pipeline.settle.cut import SinkPoint, SourcePoint
from pipeline.settle.schema import make_directory
from pipeline.settle.state import edit_state
from pipeline.settle.view import open_view
from pipeline.stage import NamedFile
from tests.settle.states import FINGERPRINT, change, cut_at, letter, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".pipeline" / "x.db"


async def test_a_run_goes_on_from_the_last_cut_of_the_run_before(path: Path) -> None:
    cut = cut_at(7, sinks={"out": SinkPoint(position={"length": 9})}, counters={"read": 8}, learned={"size": 500})
    cut.sources["csv"] = SourcePoint(cursor={"offset": 80}, skip=2, number=7, islands=[(9, 11)])
    async with opened(path) as state:
        assert state.cut is None
        lineage = state.lineage
        await state.save(cut_at(3))
        await state.save(cut)
    async with opened(path) as state:
        assert state.cut == cut
        assert (state.lineage, state.run) == (lineage, 2)
        assert len(lineage) == 16
        assert int(lineage, 16) >= 0


async def test_the_number_of_a_run_is_saved_before_anything_can_be_read(path: Path) -> None:
    async with opened(path) as state:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
            assert reader.execute("SELECT run FROM runs").fetchall() == [(1,)]
        assert state.run == 1
    async with opened(path) as state:
        assert state.run == 2


async def test_fresh_begins_a_lineage_and_keeps_letters_history_and_named_files(path: Path) -> None:
    async with opened(path) as state:
        first = state.lineage
        await state.announce("out", [NamedFile("part-1", {"inode": 4})])
        await state.save(cut_at(5, letters=[letter(1)], changes=[change(2, "k", 1)]))
        await state.finish("done", 0, {"read": 5}, at=9.0)
    async with opened(path, fresh=True) as state:
        assert state.lineage != first
        assert (state.run, state.cut) == (1, None)
        assert await state.count_letters() == 1
        assert [run.lineage for run in await state.runs()] == [state.lineage, first]
        assert await state.named("out") == [NamedFile("part-1", {"inode": 4}, first)]
        assert await state.changes_of("dedupe") == []


async def test_a_beginning_that_was_put_off_leaves_everything_as_it_was_when_it_never_comes(path: Path) -> None:
    async with opened(path) as state:
        first = state.lineage
        await state.save(cut_at(5, changes=[change(2, "k", 1)]))
    async with opened(path, fresh=True, begin=False) as state:
        assert (state.cut, state.run) == (None, 1)
        assert state.lineage != first
        await state.finish("failed", 5, None, at=1.0)
    async with opened(path, begin=False) as state:
        assert (state.lineage, state.run) == (first, 2)
        assert state.cut == cut_at(5)
        assert len(await state.changes_of("dedupe")) == 1


async def test_a_beginning_that_was_put_off_is_saved_with_the_first_write(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(5))
    async with opened(path, fresh=True, begin=False) as state:
        second = state.lineage
        await state.announce("out", [NamedFile("part-1", None)])
        assert await state.named("out") == [NamedFile("part-1", None, second)]
    async with opened(path) as state:
        assert (state.lineage, state.run, state.cut) == (second, 2, None)


async def test_what_may_change_is_said(path: Path) -> None:
    before = {"batcher 'batch': size": "500", "processor 'old'": "map", "sink 'out': concurrency": "1"}
    after = {"batcher 'batch': size": "800", "processor 'x'": "map", "processor 'x': set": "{}"}
    async with opened(path, description=before) as state:
        assert state.changed == []
    async with opened(path, description=after) as state:
        assert state.changed == [
            "batcher 'batch': size 500 -> 800",
            "processor 'old' removed",
            "processor 'x' added",
            "sink 'out' removed",
        ]
    async with opened(path, description=after) as state:
        assert state.changed == []


async def test_a_long_description_is_kept_short_and_a_change_of_it_is_still_seen(path: Path) -> None:
    async def changed(description: dict[str, str]) -> list[str]:
        async with opened(path, description=description) as state:
            return list(state.changed)

    label = "processor 'x': set"
    await changed({label: "x" * 20_000_000})
    assert (await anyio.Path(path).stat()).st_size < 1_000_000
    assert await changed({label: "x" * 20_000_000}) == []
    [said] = await changed({label: "x" * 19_999_999 + "y"})
    assert said.startswith(f"{label} xxx") and len(said) < 1500


async def test_a_state_that_kept_a_long_description_whole_opens_and_says_no_change(path: Path) -> None:
    description = {"processor 'x': set": "x" * 5000}
    async with opened(path, description=description):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        history.put(connection, "description", description)
    async with opened(path, description=description) as state:
        assert state.changed == []


async def test_other_stages_are_refused_with_old_and_new(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(5))
    other = {**FINGERPRINT, "csv": {"role": "source", "path": "b.csv"}, "more": {"role": "sink"}}
    with pytest.raises(StateError) as refused:
        async with opened(path, fingerprint=other):
            pass
    text = str(refused.value)
    assert """source 'csv': path "a.csv" -> "b.csv"; sink 'more' is new""" in text
    assert "--accept-changes" in text
    assert refused.value.exit_code == 5
    async with opened(path) as state:
        assert state.run == 2  # the refused run left no trace


async def test_accepted_changes_keep_what_is_the_same(path: Path) -> None:
    async with opened(path) as state:
        cut = cut_at(5, sinks={"out": SinkPoint(position=1)}, changes=[change(2, "k", 1)])
        cut.sources["other"] = SourcePoint(cursor=4, number=4)
        await state.save(cut)
    async with opened(
        path, fingerprint={**FINGERPRINT, "out": {"role": "sink", "path": "b"}}, accept_changes=True
    ) as state:
        assert state.cut is not None
        assert state.cut.sources == cut.sources
        assert state.cut.sinks == {}
        assert state.changed == ["""sink 'out': path "out.jsonl" -> "b\""""]
        assert len(await state.changes_of("dedupe")) == 1


async def test_a_change_is_said_once(path: Path) -> None:
    before = {"sink 'out'": "jsonl", "sink 'out': path": "out.jsonl", "sink 'out': mode": "create", "sink 'old'": "x"}
    after = {"sink 'out'": "csv", "sink 'out': path": "b", "sink 'out': mode": "append", "sink 'more'": "x"}
    old = {**FINGERPRINT, "out": {"role": "sink", "kind": "jsonl", "path": "out.jsonl"}, "old": {"role": "sink"}}
    new = {**FINGERPRINT, "out": {"role": "sink", "kind": "csv", "path": "b"}, "more": {"role": "sink"}}
    async with opened(path, fingerprint=old, description=before):
        pass
    async with opened(path, fingerprint=new, description=after, accept_changes=True) as state:
        assert state.changed == [
            "sink 'more' is new",
            "sink 'old' is gone",
            """sink 'out': kind "jsonl" -> "csv", path "out.jsonl" -> "b\"""",
            "sink 'out': mode create -> append",
        ]


async def test_a_source_that_changed_starts_anew_under_numbers_never_given(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(5))
    other = {**FINGERPRINT, "csv": {"role": "source", "path": "b.csv"}, "dedupe": {"role": "processor", "by": "z"}}
    for _ in range(2):  # and so it stays in the run after
        async with opened(path, fingerprint=other, accept_changes=True) as state:
            assert state.cut is not None
            assert state.cut.sources == {"csv": SourcePoint(cursor=None, skip=0, number=2 << 40)}
            assert await state.changes_of("dedupe") == []


async def test_named_files_stay_until_they_are_forgotten(path: Path) -> None:
    async with opened(path) as state:
        await state.announce("out", [NamedFile("a", 1), NamedFile("b", 2)])
        await state.announce("other", [NamedFile("a", 3)])
        await state.announce("out", [NamedFile("a", 4), NamedFile("od\udcffd", 5)])
        await state.forget("out", ["b"])
    async with opened(path) as state:
        assert [(file.path, file.identity) for file in await state.named("out")] == [("a", 4), ("od\udcffd", 5)]
        assert [file.identity for file in await state.named("other")] == [3]


@pytest.mark.parametrize("begin", [True, False])
async def test_files_of_a_sink_that_changed_are_no_longer_its_own(path: Path, begin: bool) -> None:
    changed = {**FINGERPRINT, "out": {"role": "sink", "path": "b.jsonl"}}
    async with opened(path) as state:
        lineage = state.lineage
        await state.announce("out", [NamedFile("a.jsonl", 1)])
        await state.announce("other", [NamedFile("a.jsonl", 2)])
    async with opened(path, fingerprint=changed, accept_changes=True, begin=begin) as state:
        before = await state.named("out")
        await state.announce("out", [NamedFile("b.jsonl", 3)])
        assert await state.named("out") == [*before, NamedFile("b.jsonl", 3, lineage)]
        assert await state.named("other") == [NamedFile("a.jsonl", 2, lineage)]
    async with opened(path, fingerprint=changed) as state:
        assert await state.named("out") == [*before, NamedFile("b.jsonl", 3, lineage)]
    assert [file.path for file in before if file.lineage != lineage] == ["a.jsonl"]


async def test_runs_tell_how_they_ended_and_a_killed_one_did_not(path: Path) -> None:
    async with opened(path):
        pass
    async with opened(path) as state:
        await state.finish("done", 0, {"read": 3}, at=12.5)
        ended, killed = await state.runs()
    assert (ended.run, ended.outcome, ended.exit_code, ended.ended, ended.report) == (2, "done", 0, 12.5, {"read": 3})
    assert (killed.run, killed.outcome, killed.ended) == (1, None, None)


async def test_old_cuts_are_thinned_to_one_a_minute_of_the_last_hour(path: Path) -> None:
    async with opened(path) as state:
        for number in range(1, 201):
            await state.save(cut_at(number, taken_at=30.0 * number))
        kept = await state.cuts(1000)
    numbers = [cut.sources["csv"].number for cut in kept]
    assert numbers[:50] == list(range(200, 150, -1))
    older = [cut.taken_at for cut in kept[60:]]
    assert len({at // 60 for at in older}) == len(older)
    assert min(older) >= 6000 - 3600 - 60
    assert 20 < len(older) < 50


async def test_a_rewind_brings_back_what_was_saved_with_a_cut(path: Path) -> None:
    async with opened(path) as state:
        await state.announce("out", [NamedFile("a", 1)])
        await state.save(cut_at(10, letters=[letter(1), letter(2)], changes=[change(3, "k", "early")]))
        to = (await state.cuts())[0].id
        await state.save(cut_at(20, letters=[letter(11)], changes=[change(12, "k", "late")], replayed=[1]))
        await state.forget("out", ["a"])
        assert [each.id for each in await state.letters()] == [2, 3]
    async with edit_state(path, pipeline="x") as state:
        assert (await state.rewind(to)).sources["csv"].number == 10
        assert [each.number for each in await state.letters()] == [1, 2]
        assert [each.path for each in await state.named("out")] == ["a"]
        assert [each.value for each in await state.changes_of("dedupe")] == ["early"]
    async with opened(path) as state:
        assert state.cut is not None
        assert state.cut.sources["csv"].number == 10
        await state.save(cut_at(30))
        assert [cut.sources["csv"].number for cut in await state.cuts()] == [30, 10]


async def test_a_rewind_to_a_cut_that_is_not_kept_is_refused(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(10))
        with pytest.raises(StateError, match="no checkpoint 99"):
            await state.rewind(99)
        assert state.cut == cut_at(10)


async def test_clear_forgets_positions_and_takes_any_stages_afterwards(path: Path) -> None:
    async with opened(path) as state:
        first = state.lineage
        await state.save(cut_at(10, letters=[letter(1)], changes=[change(3, "k", 1)]))
    async with edit_state(path, pipeline="x") as state:
        await state.clear()
    async with opened(path, fingerprint={}) as state:
        assert state.lineage != first
        assert (state.run, state.cut) == (1, None)
        assert await state.count_letters() == 1
        assert await state.changes_of("dedupe") == []


async def test_a_view_looks_into_a_state_that_a_run_holds(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(10, letters=[letter(1)]))
        async with open_view(path) as view:
            assert (view.pipeline, view.lineage, view.run) == ("x", state.lineage, 1)
            assert await view.count_letters() == 1
            await state.save(cut_at(20))
            assert (await view.cuts())[0].sources["csv"].number == 20


async def test_a_view_of_a_state_that_nobody_holds_leaves_no_file_behind(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(10))
    before = sorted(os.listdir(path.parent))
    async with open_view(path) as view:
        assert (await view.cuts())[0].sources["csv"].number == 10
    assert sorted(os.listdir(path.parent)) == before


async def test_a_second_run_on_the_same_state_is_refused_also_by_a_symbolic_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    async with opened(path):
        link.symlink_to(path)
        with pytest.raises(LockedError, match=str(os.getpid())):
            async with opened(link):
                pass
    async with opened(link) as state:
        assert state.run == 2
    assert not (tmp_path / "link.db.lock").exists()


@pytest.mark.parametrize("times", [1, 3])
async def test_a_folder_that_is_taken_away_while_it_is_empty_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As one who is done with the only other state file in it does."""
    made: list[Path] = []

    def make_and_lose(folder: Path) -> None:
        make_directory(folder)
        made.append(folder)
        if len(made) <= times:
            folder.rmdir()

    monkeypatch.setattr("pipeline.settle.state.make_directory", make_and_lose)
    async with opened(path) as state:
        assert state.run == 1
    assert made == [path.parent] * (times + 1)


def test_a_folder_that_somebody_makes_meanwhile_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, stat = tmp_path / "states", Path.stat

    def looked(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        try:
            return stat(self, follow_symlinks=follow_symlinks)
        finally:
            if self == folder and not os.path.isdir(folder):
                os.mkdir(folder)

    monkeypatch.setattr(Path, "stat", looked)
    make_directory(folder)
    assert folder.is_dir()


async def test_a_folder_that_can_not_be_there_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_none(folder: Path) -> None:
        pass

    monkeypatch.setattr("pipeline.settle.state.make_directory", make_none)
    with pytest.raises(StateError, match="can't be opened: No such file"):
        async with opened(path):
            pass


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_files_are_for_their_owner_only_under_any_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with opened(path) as state:
            await state.save(cut_at(1))
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
            mode = stat.S_IMODE(path.parent.stat().st_mode)
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("x.db", "x.db-shm", "x.db-wal", "x.db.lock"), 0o600)
    assert mode == 0o700


async def test_the_database_is_as_durable_as_we_say(path: Path) -> None:
    async with opened(path) as state:
        database = state._database  # pyright: ignore[reportPrivateUsage]
        found = await database.run(
            lambda each: [each.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        )
    assert found == ["wal", 2]


# --- cut short --------------------------------------------------------------------------------------------------------


async def _cancelled_after(turns: int, work: Any) -> None:
    """Do work, and cancel it after so many turns of the loop."""

    async def run(task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await work()

    async with anyio.create_task_group() as group:
        scope = await group.start(run)
        for _ in range(turns):
            await asyncio.sleep(0)
        scope.cancel()


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_save_leaves_the_old_cut_or_the_new_one(path: Path, turns: int) -> None:
    async with opened(path) as state:
        await state.save(cut_at(1))
        await _cancelled_after(turns, lambda: state.save(cut_at(2, letters=[letter(1)])))
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")  # nobody holds a transaction open
            other.execute("ROLLBACK")
        saved = (await state.cuts())[0].sources["csv"].number
        assert saved in (1, 2)
        assert await state.count_letters() == saved - 1
        await state.save(cut_at(3))


@pytest.mark.parametrize("turns", range(8))
async def test_a_task_cancelled_from_outside_leaves_the_old_cut_or_the_new_one(path: Path, turns: int) -> None:
    async with opened(path) as state:
        await state.save(cut_at(1))
        task = asyncio.ensure_future(state.save(cut_at(2, letters=[letter(1)])))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        saved = (await state.cuts())[0].sources["csv"].number
        assert saved == (1 if turns == 0 else 2)
        assert await state.count_letters() == saved - 1
        await state.save(cut_at(3))


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_opening_can_be_cancelled_anywhere_and_done_again(path: Path, turns: int) -> None:
    async def hold() -> None:
        async with opened(path):
            await anyio.sleep_forever()

    task = asyncio.ensure_future(hold())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    async with opened(path) as state:
        assert state.cut is None


async def test_saves_at_the_same_time_do_not_mix(path: Path) -> None:
    async with opened(path) as state:
        async with anyio.create_task_group() as group:
            for number in range(1, 30):
                group.start_soon(state.save, cut_at(number, letters=[letter(number)]))
                group.start_soon(state.announce, "out", [NamedFile(str(number), None)])
        assert {cut.sources["csv"].number for cut in await state.cuts()} == set(range(1, 30))
        assert await state.count_letters() == 29
        assert len(await state.named("out")) == 29


async def test_a_cut_that_json_cannot_hold_leaves_the_one_before(path: Path) -> None:
    async with opened(path) as state:
        await state.save(cut_at(1))
        bad = cut_at(2, letters=[letter(1)])
        bad.sources["csv"].cursor = object()
        with pytest.raises(TypeError):
            await state.save(bad)
        assert state.cut == cut_at(1)
        assert await state.count_letters() == 0


_FULL = """
import resource
import sys
import anyio
from pathlib import Path
from pipeline.errors import StorageError
from tests.settle.states import cut_at, letter, opened

async def attempt(state) -> None:
    try:
        await state.save(cut_at(2, letters=[letter(n, record="x" * 1000) for n in range(1000)]))
    except StorageError as error:
        print(error.exit_code, type(error.__cause__).__name__, error)

async def main() -> None:
    async with opened(Path(sys.argv[1])) as state:
        await state.save(cut_at(1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        await attempt(state)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await attempt(state)

anyio.run(main)
"""


def _python(code: str, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


async def test_a_full_disk_is_a_storage_error_and_the_cut_before_is_still_there(path: Path) -> None:
    done = _python(_FULL, str(path))
    first, second = done.stdout.splitlines()
    assert first == second  # the first error is kept, and nothing is tried again though there is room now
    assert first.startswith("6 OperationalError")
    assert str(path) in first
    async with opened(path) as state:
        assert state.cut == cut_at(1)
        assert await state.count_letters() == 0


_KILLED = """
import sys
import anyio
from pathlib import Path
from tests.settle.states import cut_at, letter, opened

async def main() -> None:
    async with opened(Path(sys.argv[1])) as state:
        print("open", state.run, flush=True)
        number = state.cut.sources["csv"].number if state.cut else 0
        while True:
            number += 1
            await state.save(cut_at(number, letters=[letter(number)]))
            print(number, flush=True)

anyio.run(main)
"""


def _last_saved_before_a_kill(path: Path, run: int) -> int:
    command = [sys.executable, "-c", _KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"open {run}\n"
        said = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        return int([*said, *process.stdout][-1])


async def test_a_kill_loses_no_cut_that_was_saved(path: Path) -> None:
    last = [_last_saved_before_a_kill(path, run) for run in (1, 2, 3)][-1]
    async with opened(path) as state:
        assert state.cut is not None
        assert state.cut.sources["csv"].number in (last, last + 1)
        assert await state.count_letters() == state.cut.sources["csv"].number
        assert state.run == 4


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('bang')",
        "sys.exit(3)",
        "asyncio.get_running_loop().stop()",
        "await stack.enter_async_context(opened(Path('/proc/nowhere/x.db')))",
        "asyncio.current_task().cancel(); await asyncio.sleep(1)",
    ],
)
def test_no_ending_hangs_the_process(tmp_path: Path, body: str) -> None:
    done = _python(
        f"""
        import asyncio, contextlib, sys
        from pathlib import Path
        from tests.settle.states import opened

        async def main():
            stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(opened(Path(sys.argv[1])))
            {body}

        asyncio.run(main())
        """,
        str(tmp_path / "x.db"),
        timeout=10,
    )
    assert done.returncode != 0


async def test_a_file_that_was_only_half_made_is_not_there(path: Path) -> None:
    path.parent.mkdir()
    left = path.with_name(".x.db.0123456789abcdef.new")
    left.write_text("half")
    async with opened(path) as state:
        assert state.run == 1
    assert not left.exists()
