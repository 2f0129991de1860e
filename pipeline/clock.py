"""Where the engine reads the time, so that tests can hand in their own."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import anyio

__all__ = ("Clock", "SystemClock")


class Clock(Protocol):
    """Monotonic seconds for intervals, wall seconds for what people read, and a sleep that ends with the clock."""

    def now(self) -> float:
        """Return monotonic seconds."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of this clock; may be cancelled."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back when `now` has reached a moment; returns what calls that off."""
        ...


class SystemClock:
    """The clock of the machine."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await anyio.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Set a timer on the running event loop."""
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, when - self.now()), callback).cancel
