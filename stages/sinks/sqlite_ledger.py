"""What a sink's own database keeps about its runs: which records it holds, and who may write."""

import operator
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import msgspec

from pipeline.batch import Batch
from pipeline.errors import StageError, StateError
from pipeline.spans import Held
from pipeline.stage import SinkContext

__all__ = ("Ledger",)

_TABLES = (
    """CREATE TABLE IF NOT EXISTS _pipeline_lineages (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, lineage TEXT NOT NULL,
        target TEXT NOT NULL,      -- the table that the records went to
        run INTEGER NOT NULL,
        fence TEXT,                -- of the process that may write; NULL once another lineage has taken over
        wrote INTEGER NOT NULL DEFAULT 0,
        sealed INTEGER NOT NULL DEFAULT 0,
        pruned_to TEXT NOT NULL DEFAULT '{}',
        PRIMARY KEY (pipeline, sink, lineage))""",
    """CREATE TABLE IF NOT EXISTS _pipeline_numbers (
        pipeline TEXT NOT NULL, sink TEXT NOT NULL, lineage TEXT NOT NULL, run INTEGER NOT NULL,
        source TEXT NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
        numbers BLOB,              -- first number and steps, when they are not just low to high
        children TEXT)""",
)


_OWN = "pipeline = :pipeline AND (sink = :sink OR substr(sink, 1, length(:prefix)) = :prefix)"
"""What belongs to a sink and to its partitions; no name of a stage holds the sign between them."""
_WAYS_OUT = "bring it back, begin anew with `--fresh`, or say `--repeat` to go on without the records in it"


@dataclass(slots=True)
class _Lineage:
    lineage: str
    target: str
    run: int
    fence: str | None
    wrote: bool
    pruned_to: dict[str, int]
    own: bool
    """False for what a partition of the sink noted."""


class Ledger:
    """The books of one sink of one lineage. Every method runs in the connection's thread.

    ``target`` is the table, ``replaces`` says that a new lineage doesn't mind what an older one left there.
    """

    def __init__(self, who: str, context: SinkContext, target: str, replaces: bool) -> None:
        self._who = who
        self._context = context
        # Partitions of one lineage have books of their own, each as if it were a sink of its own.
        part = context.partition
        self._name = (context.pipeline, f"{context.name}#{part}" if part else context.name)
        self._id = (*self._name, context.lineage)
        self._target = target
        self._replaces = replaces or context.repeat
        self._exact = context.delivery == "exactly_once"
        self._fence: str | None = None
        self._marked = False
        self._pruned_to: dict[str, int] = {}

    def verify(self, connection: sqlite3.Connection, has_table: bool, has_rows: bool) -> bool:
        """See that the state file and the database belong together; tell whether this lineage has been here before.

        :raises StateError: when they don't.
        """
        lineages = self._lineages(connection)
        mine = next((each for each in lineages if each.lineage == self._context.lineage and each.own), None)
        if mine is not None:
            self._verify_mine(mine, lineages, has_table)
            self._pruned_to = mine.pruned_to
            self._marked = mine.wrote
            return True
        mine_too = self._context.partition or any(each.lineage == self._context.lineage for each in lineages)
        others = [] if mine_too else [other for other in lineages if other.target == self._target and other.wrote]
        if others and has_rows and not self._replaces:
            text = f"table {self._target!r} holds records that this pipeline wrote with another state file"
            way = "bring the state file back, write to another table, or say `--repeat` to add to them"
            if self._context.fresh:
                text = f"table {self._target!r} holds records of an earlier lineage of this pipeline"
                way = (
                    "they would be written again: write to another table, choose mode: overwrite or upsert, or accept "
                    "that with `--repeat`"
                )
            raise StateError(f"{self._who}: {text}; {way}")
        if self._context.position is not None and not self._context.repeat:
            text = "this is not the database that the last run wrote to: it knows nothing of this pipeline's records"
            raise StateError(f"{self._who}: {text}; {_WAYS_OUT}")
        # In the first run only numbers that begin with the run's own are above 0: nothing was written before.
        if self._context.run > 1 and any(self._context.held_from.values()):
            self._context.warn(f"{self._who}: the database knows nothing of the records written in earlier runs")
        return False

    def _verify_mine(self, mine: _Lineage, others: Iterable[_Lineage], has_table: bool) -> None:
        if self._context.repeat:
            return
        wrote = mine.wrote or any(other.wrote and other.lineage == mine.lineage for other in others)
        if wrote and mine.target == self._target and not has_table:
            raise StateError(f"{self._who}: table {self._target!r}, which holds earlier records, is gone; {_WAYS_OUT}")
        behind = [
            f"source {source!r} is at record {self._context.held_from.get(source, 0)}, the database at {number}"
            for source, number in mine.pruned_to.items()
            if self._context.held_from.get(source, 0) < number
        ]
        if mine.run > self._context.run:
            behind.append(f"its run is {self._context.run}, the database saw run {mine.run}")
        if mine.fence is None:
            behind.append("a newer state has written here since")
        if behind:
            way = "use the newest state file, or say `--repeat` to write records again"
            raise StateError(f"{self._who}: the state is older than table {self._target!r}: {behind[0]}; {way}")

    def claim(self, connection: sqlite3.Connection) -> None:
        """Become the only one that may write for this sink; whoever else has it open can commit nothing any more."""
        for table in _TABLES:
            connection.execute(table)
        self._fence = secrets.token_hex(8)
        if self._context.repeat:
            self._pruned_to = dict(self._context.held_from)
        connection.execute(
            f"UPDATE _pipeline_lineages SET fence = NULL WHERE {_OWN} AND lineage <> :lineage", self._named()
        )
        connection.execute(
            "INSERT INTO _pipeline_lineages (pipeline, sink, lineage, target, run, fence, pruned_to)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET target = excluded.target, run = excluded.run,"
            " fence = excluded.fence, pruned_to = excluded.pruned_to",
            (*self._id, self._target, self._context.run, self._fence, _encode(self._pruned_to)),
        )

    def forget_others(self, connection: sqlite3.Connection) -> None:
        """Take note that the table was emptied: it holds nothing of other lineages."""
        connection.execute(f"UPDATE _pipeline_lineages SET wrote = 0 WHERE {_OWN}", self._named())
        connection.execute(f"DELETE FROM _pipeline_numbers WHERE {_OWN}", self._named())

    def check(self, connection: sqlite3.Connection) -> None:
        """See, within a transaction, that nobody has taken over.

        :raises StageError: when another process has.
        """
        found = connection.execute(
            "SELECT fence FROM _pipeline_lineages WHERE (pipeline, sink, lineage) = (?, ?, ?)", self._id
        ).fetchone()
        if found is None or found[0] != self._fence:
            raise StageError(f"{self._who}: fenced: another process writes to table {self._target!r} for this sink now")

    def add(self, connection: sqlite3.Connection, batch: Batch) -> None:
        """Note which records a batch held."""
        if not self._marked:
            connection.execute(
                "UPDATE _pipeline_lineages SET wrote = 1 WHERE (pipeline, sink, lineage) = (?, ?, ?)", self._id
            )
        if self._exact:
            rows = [
                (*self._id, self._context.run, source, min(numbers), max(numbers) + 1, _steps(numbers, children), text)
                for source, numbers, children in _by_source(batch)
                for text in [None if children is None else _encode(children)]
            ]
            connection.executemany("INSERT INTO _pipeline_numbers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def written(self) -> None:
        """Take note that what `add` noted is committed."""
        self._marked = True

    def held(self, connection: sqlite3.Connection) -> Held:
        """Return the records of this lineage that may come again and are held already."""
        held = Held()
        if not self._exact or not _has_tables(connection):
            return held
        rows = connection.execute(
            "SELECT source, low, high, numbers, children FROM _pipeline_numbers"
            " WHERE (pipeline, sink, lineage) = (?, ?, ?)",
            self._id,
        )
        for source, low, high, steps, children in rows:
            numbers: Sequence[int] = range(low, high)
            if steps is not None:
                numbers = list(accumulate(msgspec.msgpack.decode(steps, type=list[int])))
            if children is None:
                held.add(source, sorted(numbers))
            else:
                held.add(source, numbers, msgspec.json.decode(children, type=list[str]))
        for source, number in self._context.held_from.items():
            held.prune(source, number)
        return held

    def seal(self, connection: sqlite3.Connection) -> None:
        """Write a row, so that there is a commit that all earlier ones become durable with."""
        connection.execute(
            "UPDATE _pipeline_lineages SET sealed = sealed + 1 WHERE (pipeline, sink, lineage) = (?, ?, ?)", self._id
        )

    def prune(self, connection: sqlite3.Connection, frontiers: Mapping[str, int]) -> None:
        """Forget the numbers below the frontiers, and remember that no state from before them fits any more."""
        connection.executemany(
            "DELETE FROM _pipeline_numbers WHERE (pipeline, sink, lineage, source) = (?, ?, ?, ?) AND high <= ?",
            [(*self._id, source, number) for source, number in frontiers.items()],
        )
        connection.execute(
            "UPDATE _pipeline_lineages SET pruned_to = ? WHERE (pipeline, sink, lineage) = (?, ?, ?)",
            (_encode({**self._pruned_to, **frontiers}), *self._id),
        )

    def pruned(self, frontiers: Mapping[str, int]) -> bool:
        """Tell whether it was pruned to these frontiers already."""
        return all(self._pruned_to.get(source, 0) >= number for source, number in frontiers.items())

    def note_pruned(self, frontiers: Mapping[str, int]) -> None:
        """Take note that what `prune` did is committed."""
        self._pruned_to.update(frontiers)

    def _lineages(self, connection: sqlite3.Connection) -> list[_Lineage]:
        """Return the lineages of the sink and of its partitions."""
        if not _has_tables(connection):
            return []
        rows = connection.execute(
            f"SELECT sink, lineage, target, run, fence, wrote, pruned_to FROM _pipeline_lineages WHERE {_OWN}",
            self._named(),
        )
        return [
            _Lineage(lineage, target, run, fence, bool(wrote), msgspec.json.decode(pruned_to), sink == self._name[1])
            for sink, lineage, target, run, fence, wrote, pruned_to in rows
        ]

    def _named(self) -> dict[str, Any]:
        pipeline, sink = self._name
        return {"pipeline": pipeline, "sink": sink, "prefix": f"{sink}#", "lineage": self._context.lineage}


def _has_tables(connection: sqlite3.Connection) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('_pipeline_lineages', '_pipeline_numbers')"
    )
    return bool(found.fetchone()[0] == 2)


def _by_source(batch: Batch) -> Iterable[tuple[str, Sequence[int], list[str] | None]]:
    if isinstance(batch.sources, str):
        return batch.by_source()
    merged: dict[str, tuple[list[int], list[str] | None]] = {}
    for source, numbers, children in batch.by_source():
        some, indexes = merged.setdefault(source, ([], None if children is None else []))
        some.extend(numbers)
        if indexes is not None and children is not None:
            indexes.extend(children)
    return ((source, numbers, children) for source, (numbers, children) in merged.items())


def _steps(numbers: Sequence[int], children: Sequence[str] | None) -> bytes | None:
    """Return the first number and the step to each next one, packed; None when they are just consecutive."""
    if isinstance(numbers, range) and numbers.step == 1 and children is None:
        return None
    steps = list(map(operator.sub, numbers[1:], numbers))
    if children is None and set(steps) <= {1}:
        return None
    return msgspec.msgpack.encode([numbers[0], *steps])


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
