"""One consistent moment of everything that a checkpoint holds; all of it is data that JSON can hold."""

from typing import Any

from msgspec import Struct, field

from pipeline.spans import Span

__all__ = ("Change", "Cut", "Letter", "SavedCut", "SavedRun", "SinkPoint", "SourcePoint")


class SourcePoint(Struct, kw_only=True):
    """Where a source is resumed.

    ``number`` is the frontier: the first number that is not settled. Read again from ``cursor``, the first ``skip``
    records are settled already, so the first record read has the number ``number - skip``. ``islands`` are the spans
    beyond the frontier that are settled too.
    """

    cursor: Any = None
    skip: int = 0
    number: int = 0
    islands: list[Span] = field(default_factory=list[Span])


class SinkPoint(Struct, kw_only=True):
    """How far a sink has come: its position, and which records beyond the frontiers that position contains.

    ``held`` is what `pipeline.spans.Held.encode` returns.
    """

    position: Any = None
    held: dict[str, Any] = field(default_factory=dict[str, Any])


class Letter(Struct, kw_only=True):
    """A dead letter: a record as the failing stage received it, and why it failed.

    ``record`` may be anything when it is saved; what JSON can't hold comes back as the text of its ``repr``, with
    ``shown`` set: such a letter can be read by people and not replayed. ``at`` is in seconds since 1970. ``id`` is
    given when the letter is saved, and kept when it fails again in a replay; ``row`` is another one each time: what a
    replay counts by.
    """

    stage: str
    source: str
    number: int
    child: str = ""
    key: str = ""
    error_type: str
    error: str
    attempts: int = 1
    position: str = ""
    record: Any = None
    at: float
    run: int
    lineage: str
    replays: int = 0
    id: int | None = None
    row: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    shown: bool = False


class Change(Struct, kw_only=True):
    """What the record of a number left for a key in the state of a stage; ``value=None`` takes the key out."""

    stage: str
    key: Any
    source: str
    number: int
    value: Any = None


class Cut(Struct, kw_only=True):
    """A cut. ``letters`` and ``changes`` are what is new since the last one, ``replayed`` the rows of letters that are
    settled and go; the rest is the whole. ``taken_at`` is in seconds since 1970.
    """

    sources: dict[str, SourcePoint] = field(default_factory=dict[str, SourcePoint])
    sinks: dict[str, SinkPoint] = field(default_factory=dict[str, SinkPoint])
    letters: list[Letter] = field(default_factory=list[Letter])
    replayed: list[int] = field(default_factory=list[int])
    changes: list[Change] = field(default_factory=list[Change])
    counters: dict[str, Any] = field(default_factory=dict[str, Any])
    learned: dict[str, Any] = field(default_factory=dict[str, Any])
    taken_at: float = 0.0


class SavedCut(Struct, kw_only=True):
    """A cut in the history of a state file. ``id`` grows with each cut and is never given twice."""

    id: int
    lineage: str
    run: int
    taken_at: float
    sources: dict[str, SourcePoint]
    sinks: dict[str, SinkPoint]
    counters: dict[str, Any]
    learned: dict[str, Any]


class SavedRun(Struct, kw_only=True):
    """A run in the history of a state file; ``ended``, ``outcome`` and ``exit_code`` are None for one that was killed
    or is under way. Times are in seconds since 1970.
    """

    lineage: str
    run: int
    started: float
    ended: float | None = None
    outcome: str | None = None
    exit_code: int | None = None
    report: Any = None
