"""Log events for readers that may be slow: each has a bounded backlog, loses the oldest, and is told."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ("EventStream", "ServiceEvent")


class ServiceEvent(NamedTuple):
    """A log event: its number in the service (from 1), name, fields, and when it was, in seconds since 1970.

    ``lost`` is one of the stream's own: ``count`` events that its reader was too slow for, up to its number.
    """

    number: int
    name: str
    fields: Mapping[str, Any]
    at: float


class EventStream:
    """Log events as they come, for one reader: ``async for event in service.events(): ...``.

    Begins with the first event after it was made, ends with the service. Holds ``size`` events that were not read yet;
    of more it drops the oldest, and the reader gets ``lost`` in their place.
    """

    def __init__(self, size: int) -> None:
        self._events: deque[ServiceEvent] = deque()
        self._size = size
        self._lost = 0
        self._dropped: ServiceEvent | None = None
        self._reader: asyncio.Future[None] | None = None
        self._ended = False

    def __aiter__(self) -> "EventStream":
        return self

    async def __anext__(self) -> ServiceEvent:
        while not self._events and self._dropped is None:
            if self._ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._dropped is not None:
            event, self._dropped = self._dropped, None
            count, self._lost = self._lost, 0
            return ServiceEvent(event.number, "lost", {"count": count}, event.at)
        return self._events.popleft()

    async def __aenter__(self) -> "EventStream":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def aclose(self) -> None:
        """End the stream."""
        self.close()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes, but what is held."""
        return self._ended

    def put(self, event: ServiceEvent) -> None:
        """Hand in an event."""
        if self._ended:
            return
        self._events.append(event)
        if len(self._events) > self._size:
            self._dropped = self._events.popleft()
            self._lost += 1
        self._wake()

    def close(self) -> None:
        """Let nothing more come; what is held can still be read."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
