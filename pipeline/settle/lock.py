"""One process a state file: a kernel lock on a file beside it, dropped by the kernel when its holder dies."""

import fcntl
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import LockedError

__all__ = ("Lock",)

_PATIENCE = 0.2
"""Seconds that a holder may need between taking the lock and writing its pid."""


class Lock:
    """The lock of a state file, held from `acquire` to `release`. Also keeps out a second holder in this process.

    The file beside the state is named by the state's real path, so that every symbolic link leads to the same lock,
    and stays behind but for a state that never came to be: who removes it must hold it, and who takes it looks again.
    """

    def __init__(self, state: Path) -> None:
        self.path = state.with_name(state.name + ".lock")
        self._state = state
        self._descriptor: int | None = None
        self._working = threading.Lock()

    def look(self) -> None:
        """Refuse a lock that is held; makes and takes nothing.

        :raises LockedError: when another holds it; names its pid.
        :raises OSError: when the file can't be opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._held(descriptor) from None
        finally:
            os.close(descriptor)

    def acquire(self) -> None:
        """Take the lock and write our pid into it; does not wait for another holder.

        :raises LockedError: when another holds it; names its pid.
        :raises OSError: when the file can't be opened.
        """
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                self._take(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            if _is_of(descriptor, self.path):
                self._descriptor = descriptor
            else:
                # Its last holder took it away between our two calls; to hold that one would keep nobody out.
                os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._held(descriptor) from None
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def while_held(self, work: Callable[[], None]) -> None:
        """Do work, in a thread that may outlive a cancelled caller; `release` waits for its end."""
        with self._working:
            if self._descriptor is not None:
                work()

    def release(self, *, remove: bool = False) -> None:
        """Let go of the lock, and ``remove`` its file if asked; does nothing when it isn't held."""
        with self._working:
            descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if remove:
                os.unlink(self.path)
            os.ftruncate(descriptor, 0)
            # Closing would not do: a forked child shares the lock as long as it keeps the file open.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

    def _held(self, descriptor: int) -> LockedError:
        return LockedError(
            f"{self._state}: in use by {_holder(descriptor)}; stop it first, or choose another state file"
        )


def _is_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    deadline = time.monotonic() + _PATIENCE
    while not (pid := os.pread(descriptor, 32, 0).strip()).isdigit():
        if time.monotonic() > deadline:
            return "another process"
        time.sleep(0.01)
    return f"process {int(pid)}{_command(int(pid))}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    command = b" ".join(filter(None, words)).decode(errors="replace")
    return f" ({command[:79] + '…' if len(command) > 80 else command})" if command else ""
