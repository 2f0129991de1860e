"""Stages over lists: a source that replays, a sink that is cut back on resume, and one that is not."""

from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

import anyio.lowlevel
import msgspec
from msgspec import Meta

from pipeline.batch import Batch, Failed
from pipeline.errors import StateError
from pipeline.flow.ownership import copy_record
from pipeline.stage import (
    Chunk,
    NamedFile,
    PositionWriter,
    Progress,
    Reader,
    Resume,
    Sink,
    SinkContext,
    Source,
    SourceContext,
    Writer,
    key,
)
from pipeline.testing.crashes import CrashAt

__all__ = ("ListSink", "ListSource", "PlainListSink", "Stored", "Wait")


class Wait:
    """Among the records of a `ListSource`: wait so many seconds of the pipeline's clock before reading on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class ListSource(Source):
    """Reads the records of a list, in chunks; replays from any cursor.

    A `CrashAt` among the records is a place where the run may crash, a `Wait` one where it waits, a `Failed` a record
    that could not be read. None of them but the last has a number.
    """

    records: Annotated[list[Any], key("The records, and markers among them.")]
    chunk: Annotated[int, Meta(ge=1), key("Records of a chunk.")] = 10
    crash: Annotated[Any, key("A `CrashAt` that has a chance before each chunk and at the end.")] = None
    cursors: Annotated[bool, key("Whether each record has a cursor of its own.")] = False

    def identity(self) -> Mapping[str, Any]:
        """Return how many records there are."""
        return {"records": sum(not isinstance(each, CrashAt | Wait) for each in self.records)}

    async def open(self, context: SourceContext) -> Reader:
        """Begin behind the cursor."""
        return _ListReader(self, context)


class _ListReader(Reader):
    def __init__(self, source: ListSource, context: SourceContext) -> None:
        self._records = source.records
        self._chunk = source.chunk
        self._crash: CrashAt = source.crash or CrashAt(0)
        self._cursors = source.cursors
        self._clock = context.clock
        self._name = context.name
        self._place: int = context.cursor or 0

    async def read(self) -> AsyncGenerator[Chunk]:
        places: list[int] = []
        for place in range(self._place, len(self._records)):
            marker = self._records[place]
            if isinstance(marker, CrashAt | Wait):
                if places:
                    yield self._take(places)
                    places = []
                await self._stop_at(marker)
                continue
            places.append(place)
            if len(places) == self._chunk:
                yield self._take(places)
                places = []
        if places:
            yield self._take(places)
        self._crash("at the end of the source")

    async def _stop_at(self, marker: CrashAt | Wait) -> None:
        if isinstance(marker, Wait):
            await self._clock.sleep(marker.seconds)
        else:
            marker("in the source")

    def _take(self, places: list[int]) -> Chunk:
        self._crash("before a chunk")
        records = [copy_record(self._records[place]) for place in places]
        self._place = places[-1] + 1
        return Chunk(
            records,
            self._place,
            size=len(records),
            failed=[index for index, record in enumerate(records) if isinstance(record, Failed)],
            cursors=(lambda index: places[index] + 1) if self._cursors else None,
            position=lambda index: f"{self._name}[{places[index]}]",
        )

    def progress(self) -> Progress:
        return Progress(self._place, len(self._records))


class Stored:
    """What a `ListSink` has written: it outlives a run, as a file would."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def __repr__(self) -> str:
        return "Stored"


class ListSink(Sink):
    """Appends records to a list that outlives the run, and is cut back to the last checkpoint: exactly once.

    Each record is written by itself, so that a crash leaves part of a batch.
    """

    stored: Annotated[Stored, key("Where the records go; share it between the runs of a test.")] = msgspec.field(
        default_factory=Stored
    )
    crash: Annotated[Any, key("A `CrashAt` that has a chance around everything that the sink does.")] = None

    @property
    def records(self) -> list[Any]:
        """What is written."""
        return self.stored.records

    def resumes(self) -> Resume:
        """Return that it is cut back to a position."""
        return Resume.POSITION

    async def open(self, context: SinkContext) -> Writer:
        """Cut the list back to the position.

        :raises StateError: when it is shorter, or holds records that the state does not know.
        """
        records, position = self.stored.records, context.position
        if position is not None and len(records) < position["length"]:
            raise StateError(f"stage '{context.name}': expected {position['length']} records, found {len(records)}")
        ours = any(named.lineage == context.lineage for named in context.named)
        if position is None and records and context.saved and not ours:
            raise StateError(f"stage '{context.name}': holds {len(records)} records that the state does not know")
        if context.delivery == "exactly_once" and not context.dry and (position is not None or ours):
            del records[position["length"] if position is not None else 0 :]
        return _ListWriter(self, context, named=ours)


class _ListWriter(PositionWriter):
    def __init__(self, sink: ListSink, context: SinkContext, named: bool) -> None:
        self._records = sink.stored.records
        self._length = len(self._records)
        self._crash: CrashAt = sink.crash or CrashAt(0)
        self._context = context
        self._named = named

    async def write(self, batch: Batch) -> None:
        await self._name()
        before = len(self._records)
        self._crash("before a write")
        for record in batch.records:
            self._records.append(copy_record(record))
            self._crash("in a write")
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            del self._records[before:]
            raise
        self._crash("after a write")
        # Only now it counts: a cut that was asked for meanwhile must not name what a crash left half done.
        self._length = len(self._records)

    async def _name(self) -> None:
        """Say that the list is ours before there is anything in it, as a sink of files has to."""
        if self._context.announce is not None and not self._named:
            await self._context.announce([NamedFile("list", None, self._context.lineage)])
        self._named = True

    async def prepare(self, final: bool) -> None:
        self._crash("before a cut")

    def position(self) -> Any:
        return {"length": self._length}

    async def sync(self) -> None:
        self._crash("before a sync")
        await anyio.lowlevel.checkpoint()
        self._crash("after a sync")

    async def committed(self) -> None:
        self._crash("after a checkpoint")


class PlainListSink(Sink):
    """Appends records to a list: at least once, what came since the last checkpoint may come again."""

    stored: Annotated[Stored, key("Where the records go; share it between the runs of a test.")] = msgspec.field(
        default_factory=Stored
    )
    durably: Annotated[bool, key("Whether it counts as outliving the run; then the pipeline has a state file.")] = False

    @property
    def records(self) -> list[Any]:
        """What is written."""
        return self.stored.records

    def durable(self) -> bool:
        """Tell what the key says."""
        return self.durably

    async def open(self, context: SinkContext) -> Writer:
        """Return a writer; nothing is cut back."""
        return _PlainWriter(self.stored.records)


class _PlainWriter(Writer):
    def __init__(self, records: list[Any]) -> None:
        self._records = records

    async def write(self, batch: Batch) -> None:
        await anyio.lowlevel.checkpoint()
        self._records.extend(map(copy_record, batch.records))
