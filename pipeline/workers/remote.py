"""A sink that another process has open: what a worker writes to in its place."""

import asyncio
import types
from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from pipeline.batch import Batch
from pipeline.errors import (
    ConfigError,
    RecordError,
    RecordErrors,
    StageError,
    StateError,
    StorageError,
    Unavailable,
)
from pipeline.spans import Held
from pipeline.stage import Sink, SinkContext, TransactionWriter
from pipeline.workers.wire import (
    Done,
    Failure,
    Open,
    Prune,
    Reply,
    Request,
    Seal,
    Write,
    groups_of,
    receive_reply,
    send,
)

__all__ = ("Link", "RemoteWriter", "WriterGone", "through")


class WriterGone(StorageError):
    """Raised when the writer has died: as with storage that fails, nothing more is touched, and a resume asks it."""


class Link:
    """Where the writer is, and whether it was lost."""

    def __init__(self, socket: str, partition: int) -> None:
        self.socket = socket
        self.partition = partition
        self.lost = False


def through(spec: Sink, link: Link) -> Sink:
    """Return a sink with the same keys that writes through the process at the other end of a link."""

    async def open_remotely(self: Sink, context: SinkContext) -> RemoteWriter:
        return await RemoteWriter.connect(self, context, link)

    def body(names: dict[str, Any]) -> None:
        names.update(__module__=__name__, open=open_remotely)

    kind = types.new_class(type(spec).__name__, (type(spec),), {"kw_only": True, "eq": False}, body)
    made: Any = kind(**{name: getattr(spec, name) for name in spec.__struct_fields__})
    made = msgspec.structs.replace(made, restart=None)  # a new connection would not know what the old one committed
    assert isinstance(made, Sink)
    return made


class RemoteWriter(TransactionWriter):
    """Hands batches to the writer and waits until they are committed there."""

    def __init__(self, spec: Sink, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spec = spec
        self._link = link
        self._reader = reader
        self._writer = writer
        self._held = Held()
        self._asking = anyio.Lock(fast_acquire=True)

    @classmethod
    async def connect(cls, spec: Sink, context: SinkContext, link: Link) -> "RemoteWriter":
        """Open the sink in the writer.

        :raises WriterGone: when there is no writer.
        """
        try:
            streams = await asyncio.open_unix_connection(link.socket)
        except OSError as error:
            link.lost = True
            raise WriterGone("the writer is gone") from error
        made = cls(spec, link, *streams)
        try:
            await made._open(context)
        except BaseException:
            await made.close()
            raise
        return made

    async def write(self, batch: Batch) -> None:
        """Write all records of a batch and their numbers in one transaction, or nothing."""
        if batch.records:
            await self._ask(Write(self._spec.pack(batch.records), groups_of(batch)))

    def held(self) -> Held:
        """Return the records that were there when the sink was opened and may come again."""
        return self._held

    async def seal(self) -> None:
        """Make everything committed so far durable."""
        await self._ask(Seal())

    async def prune(self, frontiers: Mapping[str, int]) -> None:
        """Forget the numbers below the frontiers."""
        await self._ask(Prune(dict(frontiers)))

    async def close(self) -> None:
        """Let go of the writer."""
        self._writer.close()

    async def _open(self, context: SinkContext) -> None:
        done = await self._ask(
            Open(
                sink=context.name,
                partition=self._link.partition,
                run=context.run,
                position=context.position,
                delivery=context.delivery,
                held_from=dict(context.held_from),
                dry=context.dry,
            )
        )
        self._held = Held.decode(done.held)

    async def _ask(self, request: Request) -> Done:
        # Whoever is cancelled waits for the answer: only the writer knows whether it has committed.
        reply: Reply | None = None
        with anyio.CancelScope(shield=True):
            async with self._asking:
                try:
                    await send(self._writer, request)
                    reply = await receive_reply(self._reader)
                except (OSError, asyncio.IncompleteReadError) as error:
                    self._link.lost = True
                    raise WriterGone("the writer is gone") from error
        if reply is None:
            raise WriterGone("the writer was not heard")
        if isinstance(reply, Failure):
            raise _error_of(reply)
        return reply


_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (ConfigError, StageError, StateError, StorageError, Unavailable)
}


def _error_of(failure: Failure) -> Exception:
    if failure.errors:
        return RecordErrors({index: _record_error(*told) for index, told in failure.errors.items()})
    return _KINDS.get(failure.kind, StageError)(failure.text)


def _record_error(kind: str, text: str) -> Exception:
    """Return an error of the same name as there: a letter keeps it."""
    return RecordError(text) if kind == "RecordError" else type(kind, (RecordError,), {})(text)
