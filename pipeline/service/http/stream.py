"""One client's stream of server-sent events: bounded, so that a slow reader costs nobody anything but itself."""

from collections import deque
from collections.abc import AsyncGenerator

import anyio

__all__ = ("Stream",)


class Stream:
    """Holds what was not sent yet: the newest status, and so many log events, of which the oldest give way."""

    def __init__(self, backlog: int) -> None:
        self._status = b""
        self._log: deque[bytes] = deque(maxlen=backlog)
        self._lost = 0
        self._reason = ""
        self._arrived = anyio.Event()

    def status(self, encoded: bytes) -> None:
        """Send the status, JSON on one line; one that was not sent yet is replaced."""
        self._status = encoded
        self._arrived.set()

    def log(self, encoded: bytes) -> None:
        """Send a log event, JSON on one line."""
        if len(self._log) == self._log.maxlen:
            self._lost += 1
        self._log.append(encoded)
        self._arrived.set()

    def end(self, reason: str) -> None:
        """Send what is held, then why there is no more."""
        self._reason = reason
        self._arrived.set()

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield the events in the form of text/event-stream, until `end`."""
        yield b"retry: 2000\n\n"
        while True:
            await self._arrived.wait()
            self._arrived = anyio.Event()
            for event in self._held():
                yield event
            if self._reason:
                yield _event(b"end", b'{"reason":"%s"}' % self._reason.encode())
                return

    def _held(self) -> list[bytes]:
        found = [_event(b"log", encoded) for encoded in self._log]
        self._log.clear()
        if self._lost:
            found.insert(0, _event(b"lost", b'{"count":%d}' % self._lost))
            self._lost = 0
        if self._status:
            # First, because a log event is told with what is known of its pipeline.
            found.insert(0, _event(b"status", self._status))
            self._status = b""
        return found


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name, data)
