"""Dead letters as a source: numbered by their rows, each let in at the stage where it failed, or at another one."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from msgspec import structs

from pipeline.batch import Batch, Origin
from pipeline.clock import Clock
from pipeline.flow.entries import Entries, most_at_once
from pipeline.flow.outlet import Outlet
from pipeline.flow.run import Failure, Halt, Run
from pipeline.plan.topology import Topology
from pipeline.settle.cut import Letter, SourcePoint
from pipeline.settle.letters import LETTERS, Living
from pipeline.sizes import estimate
from pipeline.stage import Reader
from pipeline.watch.events import Events

__all__ = ("LettersActor", "LettersRun", "Shelf")

_AT_A_TIME = 256
"""Letters read from the state file together."""


class Shelf(Protocol):
    """Where letters are."""

    async def letters_in(self, rows: Sequence[int]) -> list[Letter]:
        """Return the letters in these rows, by ascending row."""
        ...


class LettersRun(Run):
    """A run whose records are dead letters. One that fails again is the same letter, with its loop counter raised."""

    def __init__(self, topology: Topology, clock: Clock, events: Events, *, lineage: str = "", number: int = 1) -> None:
        super().__init__(topology, clock, events, lineage=lineage, number=number)
        self.under_way: dict[int, Letter] = {}
        """The letters that are read and not yet taken out of the state file, by row."""
        self._numbers: dict[int, int] = {}
        self._named: set[int] = set()

    def key_of(self, origin: Origin) -> str:
        """Return the key that the record had when it failed first."""
        letter = self.under_way[origin.number]
        if not origin.child:
            return letter.key
        return f"{letter.key}{'.' if letter.child else '/'}{origin.child}"

    def position_of(self, origin: Origin) -> str:
        """Return where the record lies in its own source."""
        letter = self.under_way.get(origin.number)
        return letter.position if letter is not None else f"dead letter {origin.number}"

    def letter_of(self, stage: str, batch: Batch, origin: Origin, failure: Failure) -> Letter:
        """Return the letter of a record that failed again: all of its first one, but for what happened now."""
        first = self.under_way[origin.number]
        letter = structs.replace(
            super().letter_of(stage, batch, origin, failure),
            id=self._id_for(origin.number, first),
            source=first.source,
            number=first.number,
            child=".".join(filter(None, (first.child, origin.child))),
            run=first.run,
            lineage=first.lineage,
            replays=first.replays + 1,
        )
        self._numbers[id(letter)] = origin.number
        return letter

    def _id_for(self, number: int, first: Letter) -> int | None:
        """Return the id of a letter that failed again; where one became several, only the first of them keeps it."""
        if number in self._named:
            return None
        self._named.add(number)
        return first.id

    def settles(self, letter: Letter) -> bool:
        """Tell whether the letter that was replayed is settled."""
        return self.ledger.settled(LETTERS, self._numbers[id(letter)])


class LettersActor:
    """Feeds a run from the state file, with the letters that go in and at the places where they do.

    ``living`` are all letters there are: those that are not replayed stay unsettled, so that the frontier stays below
    them and what a sink holds of them, from a replay that was killed, is not forgotten.
    """

    endless = False
    reader: Reader | None = None

    def __init__(
        self,
        run: LettersRun,
        shelf: Shelf,
        whole: Topology,
        entries: Entries,
        living: Living,
        corrected: Mapping[int, Any],
        room: Callable[[], bool],
    ) -> None:
        self.name = LETTERS
        self.ended = False
        self.outlets: dict[str, Outlet] = {}
        """Where the letters of each place go; set before it runs."""
        self.first_number = living.rows[0] if living.rows else 0
        self._run = run
        self._shelf = shelf
        self._places = entries.places
        self._bounds = {place: most_at_once(whole, place) or _AT_A_TIME for place in entries.counts()}
        self._rows = entries.rows
        self._living = living
        self._corrected = corrected
        self._room = room
        self._settled: list[int] = []
        self._metrics = run.metrics[LETTERS]
        run.ledger.start(LETTERS, self.first_number)

    async def run(self) -> None:
        """Let in all letters, the oldest first, unless reading is to stop; then close the outlets."""
        self._metrics.state = "running"
        try:
            for start in range(0, len(self._rows), _AT_A_TIME):
                await self._wait_for_room()
                if not self._run.reading:
                    return
                await self._let_in(self._rows[start : start + _AT_A_TIME])
            self._count_on(self._living.last + 1)
            self.ended = True
        except Halt as halt:
            self._run.stop(halt)
        finally:
            self._metrics.state = "stopped"
            for outlet in self.outlets.values():
                outlet.close()

    def point(self) -> SourcePoint:
        """Return the lowest letter that is left, and note which ones are settled now: the cut takes them out."""
        ledger = self._run.ledger
        self._settled = [number for number in self._run.under_way if ledger.settled(LETTERS, number)]
        return SourcePoint(number=ledger.frontiers[LETTERS].number)

    @property
    def settled(self) -> list[int]:
        """The letters that were settled when `point` was asked for last, and not before."""
        return self._settled

    async def forget(self, point: SourcePoint) -> None:
        """Take note that the letters are out."""
        for number in self._settled:
            del self._run.under_way[number]

    async def close(self) -> None:
        """There is nothing to close: the state file is the run's."""

    async def _wait_for_room(self) -> None:
        started = self._run.clock.now()
        self._run.waiting_for_room += 1
        try:
            while self._run.reading and not self._room():
                await self._run.settled()
        finally:
            self._run.waiting_for_room -= 1
        self._metrics.waiting_out_seconds += self._run.clock.now() - started

    async def _let_in(self, rows: Sequence[int]) -> None:
        letters = await self._shelf.letters_in(rows)
        for letter in letters:
            self._count_on(_row(letter))
            self._run.ledger.read(LETTERS, 1)
            self._run.under_way[_row(letter)] = letter
        self._metrics.records_in += len(letters)
        for entry, batch in self._batches(letters):
            self._metrics.records_out += len(batch.records)
            self._metrics.batches += 1
            started = self._run.clock.now()
            await self.outlets[entry].send(batch)
            self._metrics.waiting_out_seconds += self._run.clock.now() - started

    def _count_on(self, number: int) -> None:
        """Count on to a number; of the rows between, those that are no letters any more are settled."""
        frontier = self._run.ledger.frontiers[LETTERS]
        low, living = frontier.next, self._living.rows
        frontier.read(max(0, number - low))
        for left in (*living[bisect_left(living, low) : bisect_left(living, number)], number):
            if low < left:
                frontier.settle(low, left)
            low = left + 1

    def _batches(self, letters: Sequence[Letter]) -> Iterator[tuple[str, Batch]]:
        """Yield the letters in order: those that lie together, go the same way and have the same metadata."""
        some: list[Letter] = []
        for letter in letters:
            if some and not self._may_join(some, letter):
                yield self._entry(some[0]), self._batch(some)
                some = []
            some.append(letter)
        if some:
            yield self._entry(some[0]), self._batch(some)

    def _may_join(self, some: Sequence[Letter], letter: Letter) -> bool:
        place = self._entry(letter)
        like = self._entry(some[0]) == place and some[0].metadata == letter.metadata
        return like and len(some) < self._bounds[place]

    def _batch(self, letters: Sequence[Letter]) -> Batch:
        numbers = [_row(letter) for letter in letters]
        records = [self._corrected.get(letter.id or 0, letter.record) for letter in letters]
        return Batch(
            records,
            LETTERS,
            numbers,
            spans=[(LETTERS, number, number + 1) for number in numbers],
            size=estimate(records),
            admitted=self._run.clock.now(),
            metadata=dict(letters[0].metadata),
        )

    def _entry(self, letter: Letter) -> str:
        return self._places[letter.id or 0]


def _row(letter: Letter) -> int:
    assert letter.row is not None  # whatever comes out of the state file has one
    return letter.row
