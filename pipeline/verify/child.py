"""A pipeline as a real child process, that can be killed, stopped and waited for."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Child", "Ended", "run")

_ROOT = Path(__file__).parents[2]
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended; ``code`` is negative for a signal that killed it."""

    code: int
    seconds: float
    said: str

    @property
    def traced(self) -> bool:
        """Whether a traceback was shown."""
        return "Traceback" in self.said


class Child:
    """A child process in a folder, unless another ``cwd`` is given; its words go to a file in the folder."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        before: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._said = folder / "said.log"
        self._started = time.monotonic()
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._said.open("ab") as said:
            self._from = said.tell()
            self._process = subprocess.Popen(
                [*before, sys.executable, *arguments],
                cwd=cwd or folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environ or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self, seconds: float = _PATIENCE) -> Ended | None:
        """Wait for the end; None if it has not come after so many seconds."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return Ended(code, time.monotonic() - self._started, self.said())

    def said(self) -> str:
        """Return what it said so far."""
        return self._said.read_bytes()[self._from :].decode(errors="replace")

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> Ended:
        """Kill it and all that it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        ended = self.wait()
        assert ended is not None
        return ended


def run(
    folder: Path, arguments: Sequence[str], *, before: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Ended:
    """Run a child to its end; one that takes two minutes is killed and told as such."""
    child = Child(folder, arguments, before=before, environ=environ)
    ended = child.wait()
    if ended is None:
        ended = child.kill()
        return Ended(ended.code, ended.seconds, f"{ended.said}\nstill running after {_PATIENCE:.0f} s")
    return ended
