"""Files that sinks made, named in the state file before their first byte."""

import sqlite3
from collections.abc import Iterable, Sequence

from pipeline.settle.json_text import decode, encode
from pipeline.stage import NamedFile

__all__ = ("add", "disown", "forget", "forget_gone", "former", "rewind", "select")


def add(connection: sqlite3.Connection, sink: str, files: Sequence[NamedFile], lineage: str) -> None:
    """Name files of a sink; one that is named already is named anew."""
    connection.executemany(
        "INSERT OR REPLACE INTO named (sink, path, identity, lineage) VALUES (?, ?, ?, ?)",
        [(sink, encode(file.path), encode(file.identity), file.lineage or lineage) for file in files],
    )


def select(connection: sqlite3.Connection, sink: str) -> list[NamedFile]:
    """Return the files of a sink that are named, the newest last."""
    query = "SELECT path, identity, lineage FROM named WHERE sink = ? AND gone IS NULL ORDER BY id"
    return [NamedFile(decode(row[0]), decode(row[1]), row[2]) for row in connection.execute(query, (sink,))]


def former(lineage: str, run: int) -> str:
    """Return what stands for a lineage as it was before a run whose sinks are other ones."""
    return f"{lineage}/{run}"


def disown(connection: sqlite3.Connection, sinks: Iterable[str], lineage: str, run: int) -> None:
    """Leave the files of sinks that aren't what they were to what they were before a run.

    What such a sink wrote is no work of its successor that a crash has cut short, and must not be cut back as if it
    were. The files stay named, so that nobody writes behind them unasked.
    """
    connection.executemany(
        "UPDATE named SET lineage = ? WHERE sink = ? AND lineage = ?",
        [(former(lineage, run), sink, lineage) for sink in sinks],
    )


def forget(connection: sqlite3.Connection, sink: str, paths: Iterable[str]) -> None:
    """Name files no longer; they stay hidden until no rewind can want them back."""
    connection.executemany(
        "UPDATE named SET gone = (SELECT coalesce(max(id), 0) FROM cuts) WHERE sink = ? AND path = ?",
        [(sink, encode(path)) for path in paths],
    )


def forget_gone(connection: sqlite3.Connection, oldest: int) -> None:
    """Delete what went before the oldest cut that is kept."""
    connection.execute("DELETE FROM named WHERE gone < ?", (oldest,))


def rewind(connection: sqlite3.Connection, cut: int) -> None:
    """Name again what went since a cut: its sink has to find those files to take them back."""
    connection.execute("UPDATE named SET gone = NULL WHERE gone >= ?", (cut,))
