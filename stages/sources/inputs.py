"""Streams for the loop: files are read by pooled threads, what may block for ever by a daemon thread of its own."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import anyio
from anyio.to_thread import run_sync

from stages.sources.streams import Stream

__all__ = ("Input", "Piped", "Pooled")


class Input(Protocol):
    """Reads off the loop."""

    async def read(self, size: int) -> bytes:
        """Return bytes that follow, nothing at the end. When cancelled, nothing is lost to a later read."""
        ...

    def raw_offset(self) -> int:
        """Return how many bytes of the file were read."""
        ...

    async def close(self) -> None:
        """Let go of it, without waiting for a blocked read."""
        ...


class Pooled(Input):
    """A stream whose reads end by themselves."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._block: bytes | None = None

    async def read(self, size: int) -> bytes:
        """Read in a thread."""
        if self._block is None:
            await run_sync(self._fetch, size)
        block, self._block = self._block, None
        return block or b""

    def raw_offset(self) -> int:
        """Return how many bytes of the file were read."""
        return self._stream.raw_offset()

    async def close(self) -> None:
        """Close the stream."""
        await run_sync(self._stream.close)

    def _fetch(self, size: int) -> None:
        # Kept here, because a read that is cancelled meanwhile never sees what it returns.
        self._block = self._stream.read(size)


class Piped(Input):
    """A stream that may block for ever, in opening already: standard input, a FIFO.

    Its thread is a daemon that nobody waits for, so that a process whose input stays silent can end.
    """

    def __init__(self, opened: Callable[[], Stream]) -> None:
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[int] = SimpleQueue()
        self._answer: bytes | BaseException | None = None
        self._asked = False
        self._arrived = anyio.Event()
        self._count = 0
        threading.Thread(target=self._run, name="pipeline-piped-input", daemon=True).start()

    async def read(self, size: int) -> bytes:
        """Wait for what comes; a read that was cancelled is answered by the next one."""
        if not self._asked:
            self._asked = True
            self._arrived = anyio.Event()
            self._wanted.put(size)
        await self._arrived.wait()
        answer, self._answer, self._asked = self._answer, None, False
        if isinstance(answer, BaseException):
            raise answer
        self._count += len(answer or b"")
        return answer or b""

    def raw_offset(self) -> int:
        """Return how many bytes came."""
        return self._count

    async def close(self) -> None:
        """Let the thread end, once the read that it may be in does."""
        self._wanted.put(0)

    def _run(self) -> None:
        stream: Stream | None = None
        while size := self._wanted.get():
            answer: bytes | BaseException
            try:
                stream = stream or self._opened()
                answer = stream.read(size)
            except Exception as error:  # whatever it is, it belongs to whoever reads
                answer = error
            try:
                self._loop.call_soon_threadsafe(self._give, answer)
            except RuntimeError:  # the loop is gone, and with it everybody who could want this
                break
        if stream is not None:
            stream.close()

    def _give(self, answer: bytes | BaseException) -> None:
        self._answer = answer
        self._arrived.set()
