"""What workers and the writer say to each other on a socket: MessagePack behind its length."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from pipeline.batch import Batch

__all__ = (
    "Done",
    "Failure",
    "Group",
    "Open",
    "Prune",
    "Reply",
    "Request",
    "Seal",
    "Write",
    "batch_of",
    "groups_of",
    "receive_reply",
    "receive_request",
    "send",
)


class Group(Struct, array_like=True):
    """The numbers of records of one source: a span, or one by one; and their child indexes, if there are any."""

    source: str
    low: int = 0
    high: int = 0
    numbers: list[int] | None = None
    children: list[str] | None = None


class Open(Struct, tag=True, kw_only=True):
    """Open a sink for a partition; the rest is what a `SinkContext` says."""

    sink: str
    partition: int
    run: int
    position: Any
    delivery: str
    held_from: dict[str, int]
    dry: bool


class Write(Struct, tag=True):
    """Write records in one transaction with their numbers."""

    packed: bytes
    groups: list[Group]


class Seal(Struct, tag=True):
    """Make everything that was written durable."""


class Prune(Struct, tag=True):
    """Forget numbers below these."""

    frontiers: dict[str, int]


class Done(Struct, tag=True):
    """What was asked for is done; ``held`` answers `Open`."""

    held: Any = None


class Failure(Struct, tag=True):
    """What was asked for is not done. ``errors`` are, by the index of a record, the type and text of its error."""

    kind: str
    text: str
    errors: dict[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])


Request = Open | Write | Seal | Prune
Reply = Done | Failure

_encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_LENGTH = 4


async def send(writer: asyncio.StreamWriter, said: Request | Reply) -> None:
    """Send a request or a reply.

    :raises ConnectionError: when the other side is gone.
    """
    data = _encode(said)
    writer.write(len(data).to_bytes(_LENGTH, "big"))
    writer.write(data)
    await writer.drain()


async def receive_request(reader: asyncio.StreamReader) -> Request:
    """Return the next request.

    :raises asyncio.IncompleteReadError, ConnectionError: when there is none.
    """
    return _requests.decode(await _receive(reader))


async def receive_reply(reader: asyncio.StreamReader) -> Reply:
    """Return the next reply.

    :raises asyncio.IncompleteReadError, ConnectionError: when there is none.
    """
    return _replies.decode(await _receive(reader))


def groups_of(batch: Batch) -> list[Group]:
    """Return which records a batch holds."""
    return [_group(*each) for each in batch.by_source()]


def batch_of(records: list[Any], groups: Sequence[Group]) -> Batch:
    """Return the batch that `groups_of` was given."""
    if len(groups) == 1:
        only = groups[0]
        return Batch(records, only.source, _numbers(only), only.children)
    some = any(group.children is not None for group in groups)
    return Batch(
        records,
        _joined([group.source] * len(_numbers(group)) for group in groups),
        _joined(_numbers(group) for group in groups),
        _joined(group.children or [""] * len(_numbers(group)) for group in groups) if some else None,
    )


async def _receive(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    return await reader.readexactly(length)


def _group(source: str, numbers: Sequence[int], children: list[str] | None) -> Group:
    if isinstance(numbers, range) and numbers.step == 1:
        return Group(source, numbers.start, numbers.stop, None, children)
    return Group(source, 0, 0, list(numbers), children)


def _numbers(group: Group) -> Sequence[int]:
    return range(group.low, group.high) if group.numbers is None else group.numbers


def _joined(parts: Iterable[Sequence[Any]]) -> list[Any]:
    return [each for part in parts for each in part]
