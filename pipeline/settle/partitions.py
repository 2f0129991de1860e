"""The partitions of a source in the state file, where several workers share a pipeline."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.settle import history
from pipeline.stage import Partition

__all__ = ("SavedPartition", "add", "clear", "finish", "select")

_LIST = "partitions"
_DONE = "partition:"


class SavedPartition(msgspec.Struct, kw_only=True):
    """A partition as it is saved; ``account`` says how its records ended once all of them have, None before."""

    number: int
    partition: Partition
    account: dict[str, int] | None = None


def select(connection: sqlite3.Connection, lineage: str) -> list[SavedPartition]:
    """Return the partitions of a lineage in order.

    :raises StateError: when what is noted does not match its checksum.
    """
    noted: Any = history.get(connection, _LIST)
    if noted is None or noted["lineage"] != lineage:
        return []
    keys = connection.execute("SELECT key FROM meta WHERE substr(key, 1, ?) = ?", (len(_DONE), _DONE)).fetchall()
    done = {int(key.removeprefix(_DONE)): history.get(connection, key) for (key,) in keys}
    found = msgspec.convert(noted["list"], list[Partition])
    return [
        SavedPartition(number=number, partition=partition, account=done.get(number))
        for number, partition in enumerate(found)
    ]


def add(connection: sqlite3.Connection, lineage: str, found: Sequence[Partition]) -> None:
    """Put partitions behind those of a lineage."""
    known = [saved.partition for saved in select(connection, lineage)]
    if not known:
        clear(connection)
    history.put(connection, _LIST, {"lineage": lineage, "list": msgspec.to_builtins([*known, *found])})


def finish(connection: sqlite3.Connection, number: int, account: Mapping[str, int]) -> None:
    """Note that a partition is done, and its account."""
    history.put(connection, f"{_DONE}{number}", dict(account))


def clear(connection: sqlite3.Connection) -> None:
    """Forget all partitions."""
    connection.execute("DELETE FROM meta WHERE key = ? OR substr(key, 1, ?) = ?", (_LIST, len(_DONE), _DONE))
