"""One holder of a state file at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import LockedError
from pipeline.settle.lock import Lock

_HOLDER = """
import sys
from pathlib import Path
from pipeline.settle.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _holder(state: Path) -> Generator[subprocess.Popen[str], None, None]:
    command = [sys.executable, "-c", _HOLDER, str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_within_a_second_and_told_the_pid(tmp_path: Path) -> None:
    state = tmp_path / "x.db"
    with _holder(state) as process:
        started = time.monotonic()
        with pytest.raises(LockedError, match=rf"process {process.pid} \(.*python") as refused:
            Lock(state).acquire()
        assert time.monotonic() - started < 1
        assert refused.value.exit_code == 4
        assert str(state) in str(refused.value)


def test_the_kernel_drops_the_lock_of_a_killed_holder(tmp_path: Path) -> None:
    state = tmp_path / "x.db"
    with _holder(state) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        lock = Lock(state)
        lock.acquire()
        assert lock.path.read_text() == f"{os.getpid()}\n"
        lock.release()


def test_a_second_holder_in_the_same_process_is_refused(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "x.db"), Lock(tmp_path / "x.db")
    first.acquire()
    with pytest.raises(LockedError, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_forked_child_does_not_keep_a_lock_that_was_released(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "x.db")
    lock.acquire()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        os._exit(0)
    lock.release()
    try:
        again = Lock(tmp_path / "x.db")
        again.acquire()
        again.release()
    finally:
        os.write(write, b".")
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_a_holder_that_has_not_written_its_pid_yet_is_waited_for_only_briefly(tmp_path: Path) -> None:
    first = Lock(tmp_path / "x.db")
    first.acquire()
    os.truncate(first.path, 0)
    with pytest.raises(LockedError, match="another process"):
        Lock(tmp_path / "x.db").acquire()
    first.release()


def test_the_lock_file_is_for_its_owner_only_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        lock = Lock(tmp_path / "x.db")
        lock.acquire()
        lock.release()
    finally:
        os.umask(before)
    assert lock.path.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep")
    lock = Lock(tmp_path / "x.db")
    lock.path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        lock.acquire()
    assert target.read_text() == "keep"


def test_work_is_not_done_without_the_lock_and_releasing_waits_for_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "x.db")
    done: list[str] = []
    lock.while_held(lambda: done.append("not held"))
    lock.acquire()
    lock.while_held(lambda: done.append("held"))
    lock.release()
    assert done == ["held"]
