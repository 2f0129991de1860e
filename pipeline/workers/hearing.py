"""The side of a spawned process: hears commands on its standard input, speaks on a pipe of its own."""

import asyncio
import os
import threading
from collections.abc import Callable

from pipeline.workers.words import Command, Leave, Setup, Word, decode_command, decode_setup, line_of

__all__ = ("Voice", "hear_setup")


def hear_setup() -> Setup | None:
    """Return the first line; None when whoever spawned us is gone already."""
    line = _lines.next()
    return decode_setup(line) if line else None


class _Lines:
    """The lines of standard input, without the lock that Python's own reader would hold when the process ends."""

    def __init__(self) -> None:
        self._buffer = b""

    def next(self) -> bytes:
        """Wait for a line and return it; empty at the end."""
        while b"\n" not in self._buffer:
            data = os.read(0, _BLOCK)
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


_BLOCK = 2**16
_lines = _Lines()


class Voice:
    """Speaks, in the thread of the event loop, and calls ``heard`` there with each command.

    When the input ends before a `Leave`, the coordinator is gone: the process ends on the spot, as if it had been
    killed, for somebody else may be about to run its partition.
    """

    def __init__(self, descriptor: int, heard: Callable[[Command], None]) -> None:
        self._descriptor = descriptor
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._hear, name="pipeline-commands", daemon=True).start()

    def say(self, word: Word) -> None:
        """Say a word; waits while nobody listens."""
        line = memoryview(line_of(word))
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            os._exit(1)

    def _hear(self) -> None:
        while line := _lines.next():
            command = decode_command(line)
            self._loop.call_soon_threadsafe(self._heard, command)
            if isinstance(command, Leave):
                return  # that the input ends then is as it should be, and there are files to be closed
        os._exit(1)
