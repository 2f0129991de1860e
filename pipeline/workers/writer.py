"""The process that writes for all workers to the sinks that only one process may have open."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress

import anyio

from pipeline.clock import SystemClock
from pipeline.errors import PipelineError, RecordErrors, StageError, Unavailable
from pipeline.plan.topology import Topology
from pipeline.stage import Sink, SinkContext, TransactionWriter
from pipeline.workers.hearing import Voice
from pipeline.workers.plan import shared_sinks
from pipeline.workers.wire import (
    Done,
    Failure,
    Open,
    Prune,
    Reply,
    Request,
    Seal,
    Write,
    batch_of,
    receive_request,
    send,
)
from pipeline.workers.words import Command, Leave, Ready, Said, Setup

__all__ = ("serve_writers", "whole_context")


async def serve_writers(topology: Topology, setup: Setup, descriptor: int) -> None:
    """Open each shared sink for the pipeline as a whole, then for each partition that asks, until told to leave.

    :raises PipelineError: when a sink refuses.
    """
    left = asyncio.Event()

    def heard(command: Command) -> None:
        if isinstance(command, Leave):
            left.set()

    voice = Voice(descriptor, heard)
    sinks = shared_sinks(topology)

    def warn(text: str) -> None:
        voice.say(Said(name="warning", fields={"text": text}))

    async with AsyncExitStack() as stack:
        for name, spec in sinks.items():
            # What refuses, empties or claims the target does so once, before any partition writes.
            context = whole_context(topology, name, setup, warn)
            stack.push_async_callback((await spec.open(context)).close)
        service = _Service(topology, setup, sinks)
        server = await asyncio.start_unix_server(service.serve, setup.socket, limit=2**20)
        async with server:
            voice.say(Ready())
            await left.wait()
            await service.close()


def whole_context(
    topology: Topology, name: str, setup: Setup, warn: Callable[[str], None] | None = None, *, dry: bool = False
) -> SinkContext:
    """Return what a shared sink is told when it is opened for the pipeline as a whole."""
    context = SinkContext(
        name,
        topology.name,
        SystemClock(),
        setup.lineage,
        setup.run,
        delivery=topology.delivery_of(name),
        position=setup.positions.get(name),
        fresh=setup.fresh,
        repeat=setup.repeat,
        dry=dry,
        held_from=setup.frontiers,
    )
    if warn is not None:
        context.warn = warn
    return context


class _Service:
    """Answers the workers. One of them writes at a time: the database has one lock anyway."""

    def __init__(self, topology: Topology, setup: Setup, sinks: Mapping[str, Sink]) -> None:
        self._topology = topology
        self._setup = setup
        self._sinks = sinks
        self._locks = {name: anyio.Lock() for name in sinks}
        self._sessions: set[_Session] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one worker until it is gone."""
        session = _Session(self)
        self._sessions.add(session)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await send(writer, await session.answer(await receive_request(reader)))
        await session.close()
        self._sessions.discard(session)
        writer.close()

    async def close(self) -> None:
        """Let go of what workers have open that are not gone yet."""
        for session in list(self._sessions):
            await session.close()

    def lock(self, name: str) -> anyio.Lock:
        """Return the lock of a sink."""
        return self._locks[name]

    async def open(self, asked: Open) -> TransactionWriter:
        """Open a sink for a partition."""
        lineage = self._setup.lineage
        context = whole_context(self._topology, asked.sink, self._setup, dry=asked.dry)
        context.run, context.position, context.held_from = asked.run, asked.position, asked.held_from
        context.delivery = "exactly_once" if asked.delivery == "exactly_once" else "at_least_once"
        context.partition = f"{asked.partition:06d}"
        writer = await self._sinks[asked.sink].for_partition(asked.partition, lineage, False).open(context)
        if not isinstance(writer, TransactionWriter):
            raise StageError(f"stage '{asked.sink}': only a sink with transactions has one writer for all")
        return writer

    def unpack(self, name: str, packed: bytes) -> list[object]:
        """Return the records that a worker packed."""
        return self._sinks[name].unpack(packed)


class _Session:
    """One sink, open for one partition."""

    def __init__(self, service: _Service) -> None:
        self._service = service
        self._name = ""
        self._writer: TransactionWriter | None = None

    async def answer(self, request: Request) -> Reply:
        """Do what is asked for; an error is an answer too."""
        try:
            if isinstance(request, Open):
                self._name = request.sink
            async with self._service.lock(self._name):
                return await self._do(request)
        except RecordErrors as errors:
            told = {index: (type(error).__name__, str(error)) for index, error in errors.errors.items()}
            return Failure("RecordErrors", str(errors), told)
        except (PipelineError, Unavailable) as error:
            return Failure(type(error).__name__, str(error))
        except Exception as error:  # a bug of the sink is the worker's to tell
            return Failure("StageError", f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Let go of the sink."""
        writer, self._writer = self._writer, None
        if writer is not None:
            async with self._service.lock(self._name):
                await writer.close()

    async def _do(self, request: Request) -> Reply:
        if isinstance(request, Open):
            self._writer = await self._service.open(request)
            return Done(self._writer.held().encode())
        assert self._writer is not None
        if isinstance(request, Write):
            await self._writer.write(batch_of(self._service.unpack(self._name, request.packed), request.groups))
        elif isinstance(request, Seal):
            await self._writer.seal()
        elif isinstance(request, Prune):
            await self._writer.prune(request.frontiers)
        return Done()
