"""Changes of keyed state in the state file: those that a resume may still look at."""

import sqlite3
from collections.abc import Iterable
from operator import itemgetter

from pipeline.errors import StateError
from pipeline.settle.cut import Change, SavedCut
from pipeline.settle.history import get, put, remove, steady_cut
from pipeline.settle.json_text import damage, decode, encode

__all__ = ("add", "clear", "prune", "rewind", "select")


def add(connection: sqlite3.Connection, changes: Iterable[Change], cut: int) -> None:
    """Save changes with a cut."""
    connection.executemany(
        "INSERT OR REPLACE INTO changes (stage, key, source, number, value, cut) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (one.stage, encode(one.key), one.source, one.number, None if one.value is None else encode(one.value), cut)
            for one in changes
        ),
    )


def select(connection: sqlite3.Connection, stage: str) -> list[Change]:
    """Return the saved changes of a stage by ascending number.

    :raises sqlite3.DatabaseError: when one has no number any more.
    """
    query = "SELECT key, source, number, value FROM changes WHERE stage = ? ORDER BY number, id"
    rows = connection.execute(query, (stage,)).fetchall()
    if not set(map(type, map(itemgetter(2), rows))) <= {int}:
        raise damage(f"the state of stage {stage!r} was changed")
    return [
        Change(
            stage=stage,
            key=decode(key),
            source=source,
            number=number,
            value=None if value is None else decode(value),
        )
        for key, source, number, value in rows
    ]


def prune(connection: sqlite3.Connection, lineage: str) -> None:
    """Delete changes that nothing can ask for any more.

    A record that comes again has at least the number of the frontier, so of the changes below it only the newest of
    each key counts. The frontier that decides is that of the oldest cut among the last ones: a rewind to any of them
    finds everything.
    """
    steady = steady_cut(connection, lineage)
    if steady is None or connection.execute("SELECT 1 FROM changes LIMIT 1").fetchone() is None:
        return
    swept: dict[str, int] = get(connection, "swept") or {}
    pruned: dict[str, int] = get(connection, "pruned") or {}
    for source, point in steady.sources.items():
        if _prune_source(connection, source, swept.get(source, 0), point.number):
            pruned[source] = point.number
        swept[source] = point.number
    put(connection, "swept", swept)
    put(connection, "pruned", pruned)


def rewind(connection: sqlite3.Connection, to: SavedCut) -> None:
    """Bring the state of all stages back to how it was at a cut.

    :raises StateError: when it isn't kept that far back.
    """
    pruned: dict[str, int] = get(connection, "pruned") or {}
    if any(_number(to, source) < low for source, low in pruned.items()):
        raise StateError(f"the state of stages isn't kept as far back as checkpoint {to.id}; choose a later one")
    connection.execute("DELETE FROM changes WHERE cut > ?", (to.id,))
    swept: dict[str, int] = get(connection, "swept") or {}
    put(connection, "swept", {source: min(low, _number(to, source)) for source, low in swept.items()})


def clear(connection: sqlite3.Connection, stages: Iterable[str] | None = None) -> None:
    """Forget the state of some stages, or of all of them."""
    if stages is not None:
        connection.executemany("DELETE FROM changes WHERE stage = ?", [(stage,) for stage in stages])
        return
    connection.execute("DELETE FROM changes")
    remove(connection, "swept", "pruned")


def _prune_source(connection: sqlite3.Connection, source: str, low: int, high: int) -> int:
    older = connection.execute(
        """DELETE FROM changes WHERE id IN (
            SELECT older.id FROM changes newer JOIN changes older
                ON older.stage = newer.stage AND older.key = newer.key AND older.source = newer.source
                AND older.number < newer.number
            WHERE newer.source = ? AND newer.number >= ? AND newer.number < ?)""",
        (source, low, high),
    )
    # What is left in the span is the newest of its key. That a key is out needs no saying, unless another source put
    # it in.
    out = connection.execute(
        """DELETE FROM changes WHERE source = ? AND number >= ? AND number < ? AND value IS NULL AND NOT EXISTS (
            SELECT 1 FROM changes other
            WHERE other.stage = changes.stage AND other.key = changes.key AND other.source <> changes.source)""",
        (source, low, high),
    )
    return older.rowcount + out.rowcount


def _number(cut: SavedCut, source: str) -> int:
    return cut.sources[source].number if source in cut.sources else 0
