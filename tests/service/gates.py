"""A function that a test holds up and lets go, and turns of the loop until everybody waits."""

import asyncio
from typing import Any

__all__ = ("Gate", "turns")


class Gate:
    """A batch function that waits until it is opened, and remembers the batches it was called with."""

    def __init__(self, opened: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self._open = asyncio.Event()
        if opened:
            self._open.set()

    def open(self) -> None:
        """Let all calls through from now on."""
        self._open.set()

    def shut(self) -> None:
        """Hold up the calls that come now."""
        self._open.clear()

    async def work(self, records: list[Any]) -> list[Any]:
        """Do the work of a batch."""
        self.batches.append(list(records))
        await self._open.wait()
        return records


async def turns(count: int = 50) -> None:
    """Let everybody else go on until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)
