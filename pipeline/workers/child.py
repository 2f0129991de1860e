"""The coordinator's side of a spawned process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from pipeline.workers.words import Command, Setup, Word, decode_word, line_of

__all__ = ("Child",)

_LONGEST = 64 * 2**20
"""Bytes of a line: the errors that were collected are in the last one."""


class Child:
    """A process that was spawned with this same interpreter and told what it is for; made by `spawn`."""

    def __init__(self, process: Process, words: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._process = process
        self._words = words
        self._transport = transport

    @classmethod
    async def spawn(cls, setup: Setup) -> "Child":
        """Start a process. Its standard output and error are ours; what it says comes on a pipe of its own."""
        role = "writer" if setup.socket else "worker"  # for whoever lists processes
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_interpreter(), "-m", "pipeline.workers", role, str(writing), stdin=PIPE, pass_fds=(writing,)
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        loop = asyncio.get_running_loop()
        words = asyncio.StreamReader(limit=_LONGEST)
        pipe = os.fdopen(reading, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), pipe)
        child = cls(process, words, transport)
        child._write(line_of(setup))
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def say(self, command: Command) -> None:
        """Give a command; to a process that has died it is lost."""
        self._write(line_of(command))

    async def hear(self) -> Word | None:
        """Return the next word; None when the process has died, or said half a word before it did."""
        try:
            line = await self._words.readline()
        except (ValueError, ConnectionError):
            return None
        return decode_word(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        """End it at once."""
        # Not by the process's own method: that would ask for its end, and take the answer from who waits for it.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> str:
        """Close its input and wait for its end; return how it ended, for people."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        code = await self._process.wait()
        self._transport.close()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit {code}"

    def _write(self, line: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(line)


def _interpreter() -> list[str]:
    # What we may import from the working directory, or not, the child may too, or not.
    here = os.getcwd() in sys.path or "" in sys.path
    return [sys.executable, *([] if here else ["-P"])]
