"""Keeps the writer alive: the one process that has the shared sinks open."""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from msgspec import structs

from pipeline.errors import PipelineError
from pipeline.workers.child import Child
from pipeline.workers.patience import Patience
from pipeline.workers.reserve import Reserve
from pipeline.workers.words import Leave, Ready, Refused, Said, Setup

__all__ = ("Writing",)

_PARTING = 5.0
"""Seconds in which a writer that was told to leave does: to close a database may be to write a log of it back."""


class Writing:
    """Starts the writer, and starts it again when it dies. ``heard`` takes its log events."""

    def __init__(
        self, setup: Setup, reserve: Reserve, heard: Callable[[Said], None], settled: Callable[[], int]
    ) -> None:
        self._setup = setup
        self._reserve = reserve
        self._heard = heard
        self._patience = Patience()
        self._settled = settled
        self._child: Child | None = None
        self._folder = ""
        self._begun = 0
        self._ready = asyncio.Event()
        self._given_up = asyncio.Event()

    async def open(self, stack: AsyncExitStack) -> None:
        """Make the folder of its sockets, for us alone."""
        self._folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pipeline-"))

    @property
    def socket(self) -> str:
        """Where the writer answers, now or soon."""
        return str(Path(self._folder, f"{self._begun}.sock"))

    async def ready(self) -> None:
        """Wait until it answers, or until nobody is to wait any more."""
        async with anyio.create_task_group() as group:
            for event in (self._ready, self._given_up):
                group.start_soon(_first, event, group.cancel_scope)

    def give_up(self) -> None:
        """Let nobody wait for it any more: the run is being stopped."""
        self._given_up.set()

    async def run(self) -> None:
        """Keep it alive until this is cancelled.

        :raises PipelineError: when it refuses a sink, or dies again and again.
        """
        try:
            while True:
                self._child = await Child.begin(structs.replace(self._setup, socket=self.socket), self._reserve)
                await self._listen(self._child)
                self._ready.clear()
                self._begun += 1
                how = await self._child.close()
                self._heard(Said(name="warning", fields={"text": f"the writer {how}; started again"}))
                self._patience.lose(0, self._settled(), "the writer", how)
        finally:
            child = self._child
            if child is not None:
                if not self._ready.is_set():
                    child.kill()  # it still starts, and nobody waits for it any more
                with anyio.CancelScope(shield=True):
                    child.say(Leave())
                    with anyio.move_on_after(_PARTING):
                        await child.close()
                    child.kill()
                    await child.close()

    async def _listen(self, child: Child) -> None:
        while (word := await child.hear()) is not None:
            if isinstance(word, Ready):
                self._ready.set()
            elif isinstance(word, Said):
                self._heard(word)
            elif isinstance(word, Refused):
                error = PipelineError(word.error)
                error.exit_code = word.code
                raise error


async def _first(event: asyncio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
