"""Whether a run may go on from a state file, and from where it does."""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct, field

from pipeline.errors import StateError
from pipeline.settle import changes, history, named, partitions
from pipeline.settle.cut import Cut, SavedCut
from pipeline.settle.fingerprint import (
    Fingerprint,
    changed_stages,
    describe_changes,
    differences,
    keep_unchanged,
    labels_said,
    shortened,
)

__all__ = ("Begun", "Beginning", "begun_last", "check_pipeline", "cut_of")


class Begun(NamedTuple):
    """Where a run stands when it begins; `StateFile` says what the fields mean."""

    lineage: str
    run: int
    cut: Cut | None
    changed: Sequence[str]
    others: Sequence[str] = ()
    """Stages that aren't what they were, by name: their points are gone."""


class Beginning(Struct, frozen=True):
    """What a run wants of the state file that it opens; ``at`` is in seconds since 1970.

    ``lineage`` is what a new one will be called, so that a beginning that is only tried and one that counts agree.
    """

    pipeline: str
    fingerprint: Fingerprint
    description: Mapping[str, str]
    fresh: bool
    accept_changes: bool
    at: float
    lineage: str = field(default_factory=lambda: os.urandom(8).hex())

    def check(self, connection: sqlite3.Connection, path: Path) -> None:
        """Refuse a file of another pipeline, of other stages, or whose current cut can't be read. Only reads.

        :raises StateError: says what differs.
        """
        check_pipeline(connection, self.pipeline, path)
        old = history.get(connection, "fingerprint")
        if self.fresh or old is None:
            return
        history.current_cut(connection)
        found = differences(old, self.fingerprint)
        if found and not self.accept_changes:
            raise StateError(
                f"{path}: the saved state is of other stages ({'; '.join(found)}); --accept-changes goes on with "
                "those that are the same (a new sink gets only what comes from now on), --fresh starts anew"
            )

    def look(self, connection: sqlite3.Connection) -> Begun:
        """Return where the run will stand when it begins, in the lineage that is there or in a new one. Only reads."""
        lineage = history.get(connection, "lineage")
        if self.fresh or lineage is None:
            lineage, run, saved, old = self.lineage, 1, None, self.fingerprint
        else:
            run = history.get(connection, "run") + 1
            saved, old = history.current_cut(connection), history.get(connection, "fingerprint")
        others = changed_stages(old, self.fingerprint)
        cut = None if saved is None else cut_of(saved)
        if others:
            cut = keep_unchanged(saved, others, self.fingerprint, run, self.at)
        changed = differences(old, self.fingerprint)
        before = history.get(connection, "description")
        if before is not None:
            changed += describe_changes(
                shortened(before), shortened(self.description), labels_said(old, self.fingerprint)
            )
        return Begun(lineage, run, cut, changed, others)

    def begin(self, connection: sqlite3.Connection) -> Begun:
        """Begin the run and return where it stands, as `look` does."""
        begun = self.look(connection)
        if begun.lineage == self.lineage:
            self._begin_lineage(connection)
        history.put(connection, "run", begun.run)
        history.start_run(connection, begun.lineage, begun.run, self.at)
        if begun.others and begun.cut is not None:
            history.save_cut(connection, begun.lineage, begun.run, begun.cut)
            changes.clear(connection, begun.others)
            named.disown(connection, begun.others, begun.lineage, begun.run)
        history.put(connection, "fingerprint", self.fingerprint)
        history.put(connection, "description", shortened(self.description))
        return begun

    def _begin_lineage(self, connection: sqlite3.Connection) -> None:
        changes.clear(connection)
        partitions.clear(connection)
        history.forget_cuts(connection)
        history.put(connection, "lineage", self.lineage)
        history.put(connection, "cut", None)


def check_pipeline(connection: sqlite3.Connection, pipeline: str, path: Path) -> None:
    """Refuse a file of another pipeline, or one with damaged notes.

    :raises StateError: says which.
    """
    history.check_notes(connection)
    found = history.get(connection, "pipeline")
    if found != pipeline:
        raise StateError(
            f"{path}: holds the state of pipeline '{found}', not of '{pipeline}'; name another file (checkpoint: path)"
        )


def begun_last(connection: sqlite3.Connection) -> Begun:
    """Return where the last run stood."""
    lineage = history.get(connection, "lineage") or ""
    saved = history.current_cut(connection)
    return Begun(lineage, history.get(connection, "run") or 0, None if saved is None else cut_of(saved), ())


def cut_of(saved: SavedCut) -> Cut:
    """Return a cut of the history as one to go on from."""
    return Cut(
        sources=saved.sources,
        sinks=saved.sinks,
        counters=saved.counters,
        learned=saved.learned,
        taken_at=saved.taken_at,
    )
