"""The coordinator's side of a process of its own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Protocol

import anyio

from pipeline.workers.reserve import Forked, Reserve
from pipeline.workers.words import Command, Setup, Word, decode_word, line_of

__all__ = ("Child",)

_LONGEST = 64 * 2**20
"""Bytes of a line: the errors that were collected are in the last one."""


class Child:
    """A process that was told what it is for; made by `begin`."""

    def __init__(self, process: "_Process", words: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        self._process = process
        self._words = words
        self._transport = transport

    @classmethod
    async def begin(cls, setup: Setup, reserve: Reserve) -> "Child":
        """Take a process of the reserve, or spawn one with this same interpreter.

        Its standard output and error are ours; what it says comes on a pipe of its own.
        """
        forked = reserve.take()
        role = "writer" if setup.socket else "worker"  # for whoever lists processes
        process, reading = await _spawned(role) if forked is None else (await _Fork.of(forked), forked.words)
        loop = asyncio.get_running_loop()
        words = asyncio.StreamReader(limit=_LONGEST)
        pipe = os.fdopen(reading, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), pipe)
        process.write(line_of(setup))
        return cls(process, words, transport)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def say(self, command: Command) -> None:
        """Give a command; to a process that has died it is lost."""
        self._process.write(line_of(command))

    async def hear(self) -> Word | None:
        """Return the next word; None when the process has died, or said half a word before it did."""
        try:
            line = await self._words.readline()
        except (ValueError, ConnectionError):
            return None
        return decode_word(line) if line.endswith(b"\n") else None

    def kill(self) -> None:
        """End it at once."""
        # Not by asyncio's own method: that would ask for its end, and take the answer from who waits for it.
        if not self._process.has_ended:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> str:
        """Close its input and wait for its end; return how it ended, for people."""
        code = await self._process.end()
        self._transport.close()
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit {code}"


class _Process(Protocol):
    """What is the same of a process, however it came to be."""

    @property
    def pid(self) -> int: ...

    @property
    def has_ended(self) -> bool:
        """Whether its end was seen, so that the id may be another's by now."""
        ...

    def write(self, line: bytes) -> None:
        """Write to its standard input."""

    async def end(self) -> int:
        """Close its standard input and wait for its end; return its exit code, or the signal, negative."""
        ...


class _Spawn:
    """A process of asyncio's."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    def write(self, line: bytes) -> None:
        stdin = self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(line)

    async def end(self) -> int:
        if self._process.stdin is not None:
            self._process.stdin.close()
        return await self._process.wait()


class _Fork:
    """A process that was forked before there was a loop."""

    def __init__(self, pid: int, commands: asyncio.WriteTransport) -> None:
        self.pid = pid
        self._commands = commands
        self._descriptor = os.pidfd_open(pid)
        self._code: int | None = None

    @classmethod
    async def of(cls, forked: Forked) -> "_Fork":
        pipe = os.fdopen(forked.commands, "wb", 0)
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, pipe)
        return cls(forked.pid, transport)

    @property
    def has_ended(self) -> bool:
        return self._code is not None

    def write(self, line: bytes) -> None:
        if not self._commands.is_closing():
            self._commands.write(line)

    async def end(self) -> int:
        self._commands.close()
        if self._code is None:
            await anyio.wait_readable(self._descriptor)
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222  it has ended
            os.close(self._descriptor)
            self._code = os.waitstatus_to_exitcode(status)
        return self._code


async def _spawned(role: str) -> tuple[_Spawn, int]:
    """Spawn a process; return it and where it speaks."""
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
    return _Spawn(process), reading


def _interpreter() -> list[str]:
    # What we may import from the working directory, or not, the child may too, or not.
    here = os.getcwd() in sys.path or "" in sys.path
    return [sys.executable, *([] if here else ["-P"])]
