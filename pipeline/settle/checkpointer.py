"""Takes cuts: freezes one consistent moment, makes what it names durable, saves it, and tells the sources."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import anyio

from pipeline.clock import Clock
from pipeline.errors import StorageError, Unavailable
from pipeline.settle.cut import Change, Cut, Letter, SinkPoint, SourcePoint

__all__ = ("Checkpointer", "Store")

_PATIENCE = 10
"""Seconds that the last cut waits for a database to be let go."""


class Store(Protocol):
    """Where cuts are saved."""

    async def save(self, cut: Cut) -> None:
        """Save a cut durably, all of it or nothing; not interrupted by cancellation."""
        ...


class CutSource(Protocol):
    """A source, as a cut sees it."""

    name: str

    def point(self) -> SourcePoint:
        """Return where to go on from."""
        ...

    async def forget(self, point: SourcePoint) -> None:
        """Take note that the point is saved."""
        ...


class CutSink(Protocol):
    """A sink, as a cut sees it."""

    name: str

    async def hold_still(self, final: bool) -> None:
        """Let no write begin, and wait for the one under way."""
        ...

    def go_on(self) -> None:
        """Let writes begin again."""
        ...

    def point(self) -> SinkPoint | None:
        """Return the position of all finished writes."""
        ...

    async def sync(self) -> None:
        """Make that position durable."""
        ...

    async def committed(self, frontiers: dict[str, int]) -> None:
        """Take note that the cut is saved."""
        ...


class Checkpointer:
    """Saves a cut each interval, on request, and at the end. One cut at a time.

    The order is the guarantee: writes finish, the moment is frozen in one turn of the loop, its files are synced, the
    frozen values are committed, and only then may a source forget. A crash between any two of these leaves the last
    saved cut, which everything can be cut back to.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        sources: Sequence[CutSource],
        sinks: Sequence[CutSink],
        pending: Callable[[], tuple[list[Letter], list[Change]]],
        saved: Callable[[Cut], None],
        counters: Callable[[], dict[str, Any]],
        learned: Callable[[], dict[str, Any]],
        interval: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._sources = sources
        self._sinks = sinks
        self._pending = pending
        self._on_saved = saved
        self._counters = counters
        self._learned = learned
        self._interval = interval
        self._requested = anyio.Event()
        self._one_at_a_time = anyio.Lock()
        self.saved = 0
        self.last_saved: float | None = None
        self.last_seconds = 0.0
        self.postponed = ""
        """Why the last cut could not be taken, if it could not."""

    def request(self) -> None:
        """Ask for a cut before the interval is over."""
        self._requested.set()

    async def run(self) -> None:
        """Take cuts until cancelled."""
        while True:
            with anyio.CancelScope() as scope:
                cancel_timer = self._clock.call_at(self._clock.now() + self._interval, scope.cancel)
                try:
                    await self._requested.wait()
                finally:
                    cancel_timer()
            self._requested = anyio.Event()
            try:
                await self.cut()
            except Unavailable as error:
                # Somebody else holds a database just now; what is pending stays so, and the next cut has it.
                self.postponed = str(error)

    async def last_cut(self, complete: bool) -> Cut:
        """Take the cut that ends a run, waiting a while for a database that somebody else holds.

        ``complete``: no write will follow in this or, until it is asked for, in a further run.
        """
        for _ in range(_PATIENCE):
            try:
                return await self.cut(complete)
            except Unavailable:
                await self._clock.sleep(1.0)
        return await self.cut(complete)

    async def cut(self, final: bool = False) -> Cut:
        """Take one cut and return it when it is saved.

        :raises StorageError: when something can't be made durable; nothing of the cut counts then.
        """
        async with self._one_at_a_time:
            started = self._clock.now()
            # Once begun a cut is finished: cut short, what was frozen would be neither pending nor saved.
            with anyio.CancelScope(shield=True):
                cut = await self._take(final, started)
        return cut  # pyright: ignore[reportPossiblyUnboundVariable]  (a shielded scope swallows no cancellation)

    async def _take(self, final: bool, started: float) -> Cut:
        cut, points = await self._freeze(final)
        await self._sync()
        await self._store.save(cut)
        self._on_saved(cut)
        self.postponed = ""
        frontiers = {name: point.number for name, point in points.items()}
        for sink in self._sinks:
            await sink.committed(frontiers)
        for source in self._sources:
            await source.forget(points[source.name])
        self.saved += 1
        self.last_saved = self._clock.now()
        self.last_seconds = self.last_saved - started
        return cut

    async def _sync(self) -> None:
        if len(self._sinks) == 1:
            await self._sinks[0].sync()
            return
        errors: list[Exception] = []

        async def sync(sink: CutSink) -> None:
            try:
                await sink.sync()
            except Exception as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for sink in self._sinks:
                group.start_soon(sync, sink)
        if errors:
            raise next((error for error in errors if isinstance(error, StorageError)), errors[0])

    async def _freeze(self, final: bool) -> tuple[Cut, Mapping[str, SourcePoint]]:
        still: list[CutSink] = []
        try:
            for sink in self._sinks:
                await sink.hold_still(final)
                still.append(sink)
            return self._frozen()
        finally:
            for sink in still:
                sink.go_on()

    def _frozen(self) -> tuple[Cut, Mapping[str, SourcePoint]]:
        """Return one moment of everything, without giving up the turn."""
        points = {source.name: source.point() for source in self._sources}
        letters, changes = self._pending()
        cut = Cut(
            sources=points,
            sinks={sink.name: point for sink in self._sinks if (point := sink.point()) is not None},
            letters=letters,
            changes=changes,
            counters=self._counters(),
            learned=self._learned(),
            taken_at=self._clock.wall(),
        )
        return cut, points
