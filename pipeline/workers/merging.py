"""Puts the outputs of partitions together: each behind those of the partitions before it, as soon as they are there."""

from contextlib import AsyncExitStack
from typing import Any

from pipeline.clock import Clock
from pipeline.plan.topology import Topology
from pipeline.settle.carried import carried
from pipeline.settle.cut import Cut, SinkPoint, SourcePoint
from pipeline.settle.state import StateFile
from pipeline.stage import PositionWriter, Sink, SinkContext, Writer
from pipeline.watch.events import Events
from pipeline.workers.books import Books
from pipeline.workers.plan import is_hidden, shared_sinks
from pipeline.workers.words import Setup
from pipeline.workers.writer import whole_context

__all__ = ("Merging",)


class Merging:
    """The merged sinks, open, and the cuts that say how far they have come."""

    def __init__(
        self, topology: Topology, state: StateFile, setup: Setup, books: Books, clock: Clock, events: Events
    ) -> None:
        self._topology = topology
        self._state = state
        self._setup = setup
        self._books = books
        self._clock = clock
        self._events = events
        self._writers: dict[str, tuple[Sink, PositionWriter]] = {}
        counters: dict[str, Any] = state.cut.counters if state.cut is not None else {}
        self.merged = int(counters.get("merged", 0))
        """Partitions whose outputs are merged, from the first one on."""
        self.saved = 0
        """Cuts that were saved in this run."""

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the sinks where the last cut left them.

        :raises PipelineError: when one refuses; nothing was touched then.
        """
        if self._state.cut is None:
            for name, spec in self._specs().items():
                await (await spec.open(await self._context(name, dry=True))).close()
        for name, spec in shared_sinks(self._topology).items():
            await (await spec.open(whole_context(self._topology, name, self._setup, dry=True))).close()
        for name, spec in self._specs().items():
            writer: Writer = await spec.open(await self._context(name))
            stack.push_async_callback(writer.close)
            if isinstance(writer, PositionWriter):
                self._writers[name] = (spec, writer)

    async def go_on(self) -> None:
        """Merge what has its turn, and save a cut that says so.

        :raises StorageError: when the storage fails.
        """
        first = self.merged
        while self.merged < len(self._books) and self._books.is_done(self.merged):
            for spec, writer in self._writers.values():
                await writer.merge(spec.for_partition(self.merged, self._state.lineage, True))
            self.merged += 1
        if self.merged > first:
            await self.cut()
        for number in range(first, self.merged):
            self._books.discard_outputs(number, self._state.lineage)

    async def cut(self, final: bool = False) -> None:
        """Save how far the sinks have come."""
        writers = {name: writer for name, (_, writer) in self._writers.items()}
        for writer in writers.values():
            await writer.prepare(final)
        # What a replay of dead letters has left in the last cut stays in it.
        before = self._state.cut.sinks if self._state.cut is not None else {}
        places: dict[str, Any] = {name: writer.position() for name, writer in writers.items()}
        places |= dict.fromkeys(self._claimed(), "its own database")
        points = {
            name: SinkPoint(position=position, held=before[name].held if name in before else {})
            for name, position in places.items()
        }
        total = self._books.total()
        counters = {"account": _settled(total), "merged": self.merged}
        source = self._topology.sources[0].name
        cut = Cut(
            sources={source: SourcePoint(number=total.settled)},
            sinks=points,
            counters=counters,
            taken_at=self._clock.wall(),
        )
        for writer in writers.values():
            await writer.sync()
        await self._state.save(carried(cut, self._state.cut))
        self.saved += 1
        for writer in writers.values():
            await writer.committed()

    def _claimed(self) -> set[str]:
        """Return the shared sinks that a writer has had open: their databases know us."""
        known: set[str] = set(self._state.cut.sinks) if self._state.cut is not None else set()
        return {name for name in shared_sinks(self._topology) if name in known or self._books.done_size()}

    def _specs(self) -> dict[str, Sink]:
        found: dict[str, Any] = {planned.name: planned.spec for planned in self._topology.sinks}
        return {name: spec for name, spec in found.items() if is_hidden(self._topology, spec)}

    async def _context(self, name: str, *, dry: bool = False) -> SinkContext:
        context = whole_context(self._topology, name, self._setup, self._warn, dry=dry)
        context.named = await self._state.named(name)
        if not dry:
            context.announce = lambda files: self._state.announce(name, files)
        return context

    def _warn(self, text: str) -> None:
        self._events.emit("warning", text=text)


def _settled(total: Any) -> dict[str, int]:
    counted = {name: int(getattr(total, name)) for name in total.__struct_fields__}
    return {**counted, "read": total.settled}
