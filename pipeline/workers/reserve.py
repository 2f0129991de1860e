"""Processes that are forked while the command has one thread and nothing runs: they know the plan, and wait."""

import os
import signal
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import anyio.lowlevel

from pipeline.plan.topology import Topology
from pipeline.workers.plan import shared_sinks
from pipeline.workers.starting import attend

__all__ = ("Forked", "Reserve")


@dataclass(frozen=True, slots=True)
class Forked:
    """A process that waits for its setup; ``commands`` and ``words`` are our ends of its pipes."""

    pid: int
    commands: int
    words: int


class Reserve:
    """Processes that nobody has taken yet; whoever finds none spawns one.

    A fork has all that was imported and planned already, where a process that is spawned takes a quarter of a second
    of processor time to have it. But a fork also has whatever the modules of others have made when they were
    imported: connections, seeds, names that are to be unique; and of several threads only the one that forked lives
    on, with the locks of the others held for ever. So there are forks of our own code only, before any thread runs.
    """

    def __init__(self) -> None:
        self._waiting: deque[Forked] = deque()

    def fill(self, topology: Topology) -> None:
        """Fork the workers that a run begins with, and the writer if there is to be one, where that is safe.

        To be called for a plan that names no code of others.
        """
        anyio.run(anyio.lowlevel.checkpoint)  # most of anyio is imported when it is first used
        if _is_safe():
            with suppress(OSError):  # no more processes or files: what is missing is spawned, or says why it can't be
                for _ in range(topology.config.workers + bool(shared_sinks(topology))):
                    self._waiting.append(self._fork(topology))

    def take(self) -> Forked | None:
        """Return a process that waits; None when there are none left."""
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """Let those go that nobody took."""
        while (left := self.take()) is not None:
            os.close(left.commands)
            os.close(left.words)
            os.waitpid(left.pid, 0)

    def _fork(self, topology: Topology) -> Forked:
        hearing, commands = os.pipe()
        words, speaking = os.pipe()
        try:
            # What is in a buffer would be written by both.
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
        except BaseException:
            os.close(commands)
            os.close(words)
            raise
        else:
            if not pid:
                ours = [end for each in self._waiting for end in (each.commands, each.words)]
                _begin(topology, hearing, speaking, [commands, words, *ours])
        finally:
            os.close(hearing)
            os.close(speaking)
        return Forked(pid, commands, words)


def _begin(topology: Topology, hearing: int, speaking: int, others: list[int]) -> NoReturn:
    """Be the process that was forked, and end it, whatever happens: what is further up the stack is not its own."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        # Whoever held on to an end of another's pipe would keep it from noticing that the coordinator is gone.
        for descriptor in others:
            os.close(descriptor)
        os.dup2(hearing, 0)
        os.close(hearing)
        code = attend(speaking, topology)
    except BaseException:
        import traceback

        traceback.print_exc()
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _is_safe() -> bool:
    """Tell whether this process has one thread, those included that Python does not know of, on a system that forks.

    On macOS its own libraries do not survive a fork; and an old Linux, or a sandbox, has no way to wait for the end.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False
