"""Workers that are forked: where a config names no code of others, they are copies of the command as it had loaded."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.plan.load import Loaded, load
from pipeline.workers.reserve import Reserve
from tests.cli.commands import Command, ending, start

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned"),
]

COUNT = 4000
CONFIG = """\
name: forked
partition: 16KiB
checkpoint: {path: state.db, interval: 50ms}
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: filter
    with: {where: "n % 10 != 3"}
  - processor: map
    with: {set: {twice: "n * 2"}}
    rate_limit: {rate: 3000/s, per: record}
  - batcher: fixed
    with: {size: 50}
  - sink: jsonl
    name: file
    with: {path: out.jsonl}
  - sink: sqlite
    name: table
    from: fixed
    with: {path: out.db, table: t}
"""
MERGED = "".join(f'{{"n":{n},"twice":{2 * n}}}\n' for n in range(COUNT) if n % 10 != 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"n": number}) + "\n" for number in range(COUNT)))
    return tmp_path


def children(parent: int) -> Iterator[tuple[int, str, bytes]]:
    """Yield the processes of a process: id, name, command line."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                name = path.with_name("comm").read_text().strip()
                yield int(path.parent.name), name, path.with_name("cmdline").read_bytes()


def at_work(process: "subprocess.Popen[str]", folder: Path) -> list[tuple[int, str, bytes]]:
    """Return the processes of a run as soon as two partitions have begun."""
    until(lambda: process.poll() is not None or len(list(folder.glob("state.db.partitions/*/*.db"))) >= 2)
    assert process.poll() is None, ending(process)
    return list(children(process.pid))


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def loaded(folder: Path, *settings: str) -> Loaded:
    return load(folder / "c.yaml", overrides=["workers=2", *settings])


def test_workers_and_the_writer_are_forks_and_are_called_what_they_are(folder: Path) -> None:
    process = start(folder, "run", "c.yaml", "--workers", "2", "--log", "text")
    found = at_work(process, folder)
    assert sorted(name for _, name, _ in found) == ["pipeline-worker", "pipeline-worker", "pipeline-writer"]
    assert not any(b"pipeline.workers" in line for _, _, line in found)
    code, said = ending(process)
    assert code == 0, said
    assert (folder / "out.jsonl").read_text() == MERGED


def test_a_config_that_names_code_has_processes_of_its_own(folder: Path) -> None:
    (folder / "work.py").write_text("def each(record):\n    return record\n")
    call = '  - processor: call\n    with: {function: "work:each"}\n  - batcher: fixed'
    (folder / "c.yaml").write_text(CONFIG.replace("  - batcher: fixed", call))
    process = start(folder, "run", "c.yaml", "--workers", "2", "--log", "text")
    found = at_work(process, folder)
    assert len(found) == 3
    assert all(b"pipeline.workers" in line for _, _, line in found)
    assert ending(process)[0] == 0


@pytest.mark.parametrize("victim", ["pipeline-worker", "pipeline-writer"])
def test_one_that_is_killed_is_followed_by_a_process_of_its_own(victim: str, folder: Path) -> None:
    process = start(folder, "run", "c.yaml", "--workers", "2", "--log", "text")
    killed = next(pid for pid, name, _ in at_work(process, folder) if name == victim)
    os.kill(killed, signal.SIGKILL)
    until(lambda: process.poll() is not None or any(b"pipeline.workers" in line for *_, line in children(process.pid)))
    code, said = ending(process)
    assert code == 0, said
    assert "was killed by signal 9; started again" in said
    assert (folder / "out.jsonl").read_text() == MERGED
    assert not list(folder.glob("*partitions*"))


def test_forks_end_with_their_coordinator_and_a_resume_makes_the_same_of_it(folder: Path) -> None:
    process = start(folder, "run", "c.yaml", "--workers", "2", "--log", "text")
    left = [pid for pid, _, _ in at_work(process, folder)]
    os.kill(process.pid, signal.SIGKILL)
    assert ending(process)[0] == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
    code, said = ending(start(folder, "run", "c.yaml", "--workers", "3"))
    assert code == 0, said
    assert (folder / "out.jsonl").read_text() == MERGED


def test_a_signal_to_all_of_them_is_an_orderly_end(folder: Path) -> None:
    process = start(folder, "run", "c.yaml", "--workers", "2", "--log", "text")
    for pid, _, _ in at_work(process, folder):
        os.kill(pid, signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    code, said = ending(process)
    assert code == 143, said
    assert "started again" not in said
    code, said = ending(start(folder, "run", "c.yaml", "--workers", "2"))
    assert code == 0, said
    assert (folder / "out.jsonl").read_text() == MERGED


def test_forks_that_nobody_needs_are_let_go(folder: Path) -> None:
    reserve = Reserve()
    reserve.fill(loaded(folder).topology)
    waiting = [pid for pid, _, _ in children(os.getpid())]
    assert len(waiting) == 3
    reserve.close()
    assert not list(children(os.getpid()))


def test_nothing_is_forked_beside_another_thread(folder: Path) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        reserve = Reserve()
        reserve.fill(loaded(folder).topology)
        assert reserve.take() is None
    finally:
        ended.set()
        thread.join()


def test_nothing_is_forked_where_its_end_could_not_be_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", unknown)
    reserve = Reserve()
    reserve.fill(loaded(folder).topology)
    assert reserve.take() is None


def test_a_partition_without_dead_letters_is_put_away_unopened(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.chdir(folder)
    monkeypatch.setattr("pipeline.workers.books.edit_state", opened)
    (folder / "c.yaml").write_text(CONFIG.split("    rate_limit")[0] + CONFIG[CONFIG.index("  - batcher") :])
    ran = Command(folder, capsys)("run", "c.yaml", "--workers", "2")
    assert ran.code == 0, ran.err
    assert (folder / "out.jsonl").read_text() == MERGED


def test_code_of_others_is_noticed(folder: Path) -> None:
    assert not loaded(folder).foreign
    (folder / "work.py").write_text("def told(letter, attempts):\n    pass\n")
    assert loaded(folder, "on_dead_letter=work:told").foreign
