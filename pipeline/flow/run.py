"""What the actors of one run share: books, clock, counters, what is pending for the next cut, flags of a stop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from pipeline.batch import Batch, Origin
from pipeline.cause import cause_of, text_of
from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.flow.witness import Witness
from pipeline.plan.topology import Topology
from pipeline.projection import Projected, whole
from pipeline.settle.cut import Change, Cut, Letter
from pipeline.settle.ledger import End, Ledger
from pipeline.stage import Position
from pipeline.watch.events import Events, hidden
from pipeline.watch.metrics import StageMetrics
from pipeline.widening import narrowed

__all__ = ("YIELD_AFTER", "Broken", "Failure", "Full", "Halt", "Place", "Run")

YIELD_AFTER = 0.005
"""Seconds of uninterrupted work after which other tasks get a turn."""
MAX_COLLECTED = 1000
"""Errors listed in the report under ``on_failure: collect``; further ones are only counted."""
_FORCE_LETTERS = 1000
_FORCE_LETTER_BYTES = 2**20


class Failure(Struct):
    """A record that failed for good: what it was when the stage received it, and why."""

    record: Any
    error: BaseException
    attempts: int = 1
    unavailable: bool = False
    """Whether it is not the record that is to blame."""


class Halt(Exception):
    """A record failed under ``on_failure: stop``: the run ends with what came before it."""

    def __init__(self, stage: str, kind: str, position: str, error: BaseException) -> None:
        super().__init__(f"stage '{stage}' ({kind}): {position}: {cause_of(error)}")
        self.stage = stage
        self.error = error


class Full(Halt):
    """A record failed and there is no room for its letter: the run ends with what came before it."""

    def __init__(self, stage: str, kind: str, position: str, error: BaseException, bound: str) -> None:
        super().__init__(stage, kind, position, error)
        self.args = (
            f"{self}; there is no room for its letter: dead letters are at their bound of {bound}; replay some "
            "(pipeline dlq replay), take some out (pipeline dlq export, dlq purge), or raise the bound (dead_letter: "
            "max), and run again: it goes on from here",
        )


class Broken(Halt):
    """A source can't be read any further: the run ends with what came before."""

    def __init__(self, stage: str, error: Exception) -> None:
        Exception.__init__(self, str(error))
        self.stage = stage
        self.error = error


class Place:
    """Where a stage, or one of its tasks, has the batch that it works on, to be found when nothing moves any more.

    It is among all places as long as its context lasts.
    """

    __slots__ = ("_all", "batch", "stage")

    def __init__(self, stage: str, among: set["Place"]) -> None:
        self.stage = stage
        self.batch: Batch | None = None
        self._all = among

    def __enter__(self) -> "Place":
        self._all.add(self)
        return self

    def __exit__(self, *raised: object) -> None:
        self._all.remove(self)


class _Located(Struct):
    """A chunk that is not settled yet: where its records lie in their source."""

    first: int
    count: int
    position: Position | None


class Run:
    """One run of a topology. Actors write to it within a turn of the loop; nothing here waits but `settled`."""

    def __init__(self, topology: Topology, clock: Clock, events: Events, *, lineage: str = "", number: int = 1) -> None:
        self.topology = topology
        self.clock = clock
        self.events = events
        self.lineage = lineage
        self.number = number
        self.ledger = Ledger(self._on_settled)
        self.metrics = {
            name: StageMetrics(name, stage.role, stage.kind, getattr(stage.spec, "concurrency", 1))
            for name, stage in topology.stages.items()
        }
        self.policies: dict[str, str] = {
            name: stage.spec.on_failure or topology.config.on_failure for name, stage in topology.stages.items()
        }
        self.metadata: dict[str, Any] = dict(topology.config.metadata)
        self.letters: list[Letter] = []
        self.changes: list[Change] = []
        self.collected: list[dict[str, Any]] = []
        self.reading = True
        """False once a drain or a halt has begun: sources read no more."""
        self.draining = False
        self.waiting_for_room = 0
        """Sources that may not read on before something is settled."""
        self.halt: Halt | None = None
        self.fault: PipelineError | None = None
        self.on_stop: list[Callable[[], None]] = []
        self.on_drain: list[Callable[[], None]] = []
        self.request_cut: Callable[[], None] = lambda: None
        self.shared = False
        """Whether this is a partition of a run by workers."""
        self.rates = 1.0
        """The part of every rate that is this run's: less than 1 in one of several workers."""
        self.has_state = False
        """Whether cuts are taken; without them nothing is kept for one."""
        self.held_in_groups = 0
        """Records that wait in a stream operator for others to be grouped with."""
        self.letters_saved = 0
        self.places: set[Place] = set()
        """Where stages work on batches."""
        self.witness: Witness | None = None
        """Who is told what becomes of records; see `attend`."""
        self.room_for_letters: int | None = None
        """How many letters the state file may still take in this run; None without a bound."""
        self.held_by_sinks: Callable[[str, Origin], bool] = lambda stage, origin: False
        self._letter_bytes = 0
        self._located: dict[str, deque[_Located]] = {}
        self._waiters: list[asyncio.Future[None]] = []

    # --- the stop ---

    def stop_reading(self) -> None:
        """Let the sources end where they are: the beginning of a drain."""
        if self.reading:
            self.reading = False
            for stop in self.on_stop:
                stop()
            self._on_settled()

    def drain(self) -> None:
        """End early by wish: read no more, finish what is under way, abandon what waits for another attempt."""
        self.draining = True
        for interrupt in list(self.on_drain):
            interrupt()
        self.stop_reading()

    def stop(self, halt: Halt) -> None:
        """End the run because of a record; the first reason counts."""
        if self.halt is None:
            self.halt = halt
        self.stop_reading()

    async def settled(self) -> None:
        """Wait until something is settled, or reading stops."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _on_settled(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # --- who waits for answers ---

    def attend(self, witness: Witness) -> None:
        """Tell somebody what becomes of records, before the first is read: no failure of theirs ends the run."""
        self.witness = self.ledger.watcher = witness
        self.policies = {name: "answer" if policy == "stop" else policy for name, policy in self.policies.items()}

    def answers(self, batch: Batch) -> bool:
        """Tell whether somebody is told of all failures in a batch, also when the other side can't be reached."""
        return self.witness is not None and self.witness.answers(batch.sources)

    def drop_late(self, batch: Batch) -> None:
        """Take out of a batch, before work on it, what nobody waits for any more."""
        mask = self.witness.in_time(batch) if self.witness is not None else None
        if mask is None:
            return
        for index, wanted in enumerate(mask):
            if not wanted:
                self.ledger.mark(batch.origin(index), End.SKIPPED)
        if batch.ticket is not None:
            batch.ticket.smooth = False
        batch.keep(mask)

    # --- where records lie ---

    def place(self, stage: str) -> Place:
        """Return a place to work in, for as long as its context lasts."""
        return Place(stage, self.places)

    def locate(self, source: str, first: int, count: int, position: Position | None) -> None:
        """Remember where the records of a chunk lie, until they are settled."""
        located = self._located.setdefault(source, deque())
        frontier = self.ledger.frontiers[source].number
        while located and located[0].first + located[0].count <= frontier:
            located.popleft()
        located.append(_Located(first, count, position))

    def position_of(self, origin: Origin) -> str:
        """Return where a record lies, for people: file and line, or source and number."""
        for chunk in self._located.get(origin.source, ()):
            if chunk.first <= origin.number < chunk.first + chunk.count and chunk.position is not None:
                return chunk.position(origin.number - chunk.first)
        return f"{origin.source} record {origin.number & _NUMBER_MASK}"

    def key_of(self, origin: Origin) -> str:
        """Return the key of a record: the same on every repeat."""
        child = f"/{origin.child}" if origin.child else ""
        return f"{self.lineage}/{origin.source}/{origin.number}{child}"

    # --- failures ---

    def fail(self, stage: str, batch: Batch, index: int, failure: Failure) -> Halt | None:
        """Do with one failed record of a batch as its stage's policy says; returns the halt if it is to stop.

        The record's number settles with the batch, whose owner takes the record out of it.
        """
        origin = batch.origin(index)
        planned = self.topology.stages[stage]
        if self.held_by_sinks(stage, origin):
            # It was written before a crash: it counts as written, whatever became of it this time.
            self.ledger.mark(origin, End.WRITTEN)
            return None
        policy, witness = self._policy(stage, origin, failure)
        if policy != "skip" or witness is not None:
            failure.record = _as_read(failure.record)
        position = self.position_of(origin)
        full = policy == "dead_letter" and self._is_full()
        if full:
            policy = "stop"
        self.metrics[stage].fail(policy)
        if self.events:
            self._tell(stage, policy, position, origin, failure.error)
        letter = None
        if full:
            bound = f"{self.topology.config.letters().max:,}" + (" for this partition" if self.shared else "")
            return Full(stage, f"{planned.role} {planned.kind}", position, failure.error, bound)
        if policy == "stop":
            return Halt(stage, f"{planned.role} {planned.kind}", position, failure.error)
        if policy == "dead_letter":
            letter = self._bury(stage, batch, origin, position, failure)
        elif policy == "collect":
            self._collect(stage, origin, position, failure)
        else:
            self.ledger.mark(origin, End.SKIPPED)
        if witness is not None:
            witness.failed(stage, origin, position, failure, letter)
        return None

    def _tell(self, stage: str, policy: str, position: str, origin: Origin, error: BaseException) -> None:
        kind, key = type(error).__name__, self.key_of(origin)
        self.events.emit(
            "failed", stage=stage, outcome=policy, position=position, error=str(error), error_type=kind, key=key
        )

    def unreachable(self, stage: str, origin: Origin, error: BaseException) -> Halt:
        """Return the halt for what a stage can't reach: no record is to blame, and from this one on none settles."""
        planned = self.topology.stages[stage]
        return Halt(stage, f"{planned.role} {planned.kind}", self.position_of(origin), error)

    def _policy(self, stage: str, origin: Origin, failure: Failure) -> tuple[str, Witness | None]:
        """Return what is done with a record that failed, and who is told of it."""
        policy = self.policies[stage]
        if self.witness is not None and self.witness.answers(origin.source):
            return "answer" if failure.unavailable else policy, self.witness
        return "stop" if policy == "answer" else policy, None

    def letter_of(self, stage: str, batch: Batch, origin: Origin, failure: Failure) -> Letter:
        """Return the letter of a record that failed."""
        mask = self.topology.mask
        return Letter(
            stage=stage,
            source=origin.source,
            number=origin.number,
            child=origin.child,
            key=self.key_of(origin),
            error_type=type(failure.error).__name__,
            error=mask(text_of(failure.error)),
            attempts=failure.attempts,
            position=self.position_of(origin),
            record=failure.record,
            at=self.clock.wall(),
            run=self.number,
            lineage=self.lineage,
            metadata=hidden(dict(batch.metadata), mask),
        )

    def settles(self, letter: Letter) -> bool:
        """Tell whether the number is settled whose settling a pending letter is saved with."""
        return self.ledger.settled(letter.source, letter.number)

    def _is_full(self) -> bool:
        return self.room_for_letters is not None and self.letters_saved + len(self.letters) >= self.room_for_letters

    def _bury(self, stage: str, batch: Batch, origin: Origin, position: str, failure: Failure) -> Letter:
        self.ledger.mark(origin, End.DEAD_LETTERED)
        letter = self.letter_of(stage, batch, origin, failure)
        self.letters.append(letter)
        self._letter_bytes += batch.size // max(len(batch.records), 1)
        self.events.emit(
            "dead_letter",
            stage=stage,
            position=position,
            error=letter.error,
            error_type=letter.error_type,
            key=letter.key,
        )
        if len(self.letters) >= _FORCE_LETTERS or self._letter_bytes >= _FORCE_LETTER_BYTES:
            self.request_cut()
        return letter

    def _collect(self, stage: str, origin: Origin, position: str, failure: Failure) -> None:
        self.ledger.mark(origin, End.COLLECTED)
        if len(self.collected) < MAX_COLLECTED:
            self.collected.append(
                {
                    "stage": stage,
                    "position": position,
                    "error": self.topology.mask(cause_of(failure.error)),
                    "record": _described(failure.record),
                    "attempts": failure.attempts,
                }
            )

    def pending(self) -> tuple[list[Letter], list[Change]]:
        """Return, for a cut, the letters and changes whose numbers are settled; they stay pending until it is saved."""
        letters = [letter for letter in self.letters if self.settles(letter)]
        changes = [change for change in self.changes if self.ledger.settled(change.source, change.number)]
        return letters, changes

    def saved(self, cut: Cut) -> None:
        """Take note that a cut is saved, and so what of the pending was in it."""
        self.letters_saved += len(cut.letters)
        if cut.letters:
            saved = set(map(id, cut.letters))
            self.letters[:] = [letter for letter in self.letters if id(letter) not in saved]
            self._letter_bytes = 0
        if cut.changes:
            saved = set(map(id, cut.changes))
            self.changes[:] = [change for change in self.changes if id(change) not in saved]
        if self.witness is not None:
            self.witness.saved(cut)


def _described(record: Any) -> str:
    try:
        return repr(record)[:1000]
    except RecursionError:
        return f"{type(record).__name__}, nested too deeply to be shown"


def _as_read(record: Any) -> Any:
    """Return a record as somebody is to see it: with all its fields, if that can be."""
    try:
        return narrowed(whole(record))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return str(record.whole_line, "utf-8") if isinstance(record, Projected) else record


_NUMBER_MASK = (1 << 40) - 1
"""The numbers of a source that can't replay carry the run's number above these bits."""
