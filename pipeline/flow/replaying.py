"""A replay from start to end: a run of the part of a pipeline that dead letters still have before them."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
from msgspec import structs

from pipeline.clock import Clock
from pipeline.errors import StateError
from pipeline.flow.assembly import Assembly, Options, open_run_state, open_stages
from pipeline.flow.entries import Entries, Replay, entries_of, outputs_of
from pipeline.flow.replay import LettersActor, LettersRun
from pipeline.flow.supervisor import Supervisor
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.settle.checkpointer import Store
from pipeline.settle.cut import Cut
from pipeline.settle.letters import LETTERS
from pipeline.settle.state import StateFile
from pipeline.stage import Source
from pipeline.watch.events import Events
from pipeline.watch.report import Account, Report

__all__ = ("Replaying",)

_NAMED = 10
"""Letters that can't be replayed told one by one; of further ones only the number."""


class Replaying(Supervisor):
    """Replays dead letters once. It is a run of its own: all sources, and sinks out of reach, stay where they are.

    Each letter is taken out of the state file in the cut that settles it, which also holds the sinks' positions; so a
    replay that is killed and started again gives each letter to a sink once, as far as the sink can be resumed at all.
    """

    def __init__(
        self, topology: Topology, replay: Replay, *, clock: Clock | None = None, events: Events | None = None
    ) -> None:
        super().__init__(topology, Options(), clock=clock, events=events)
        self._whole = topology
        self._replay = replay
        self._taken_out = 0
        self._letters: LettersActor | None = None
        self.entries = Entries()
        """Which letters are replayed and which are left; known once it runs."""

    async def _assemble(self, stack: AsyncExitStack) -> Assembly:
        state = await self._open_state(stack)
        found = await state.letter_outlines(self._replay.wanted)
        self.entries = entries_of(found, self._whole, self._replay)
        self._tell_left()
        places = {place: outputs_of(self._whole, place) for place in self.entries.counts()}
        feed = PlannedStage(LETTERS, "source", LETTERS, Source())
        self._topology = self._whole.part(feed, list(places.values()))
        run = LettersRun(self._topology, self._clock, self._events, lineage=state.lineage, number=state.run)
        run.has_state = True
        # Where nothing is replayed nothing is saved either: it is no run.
        stages = await stack.enter_async_context(AsyncExitStack())
        assembly = Assembly(run, self._options, state if places else None, state.cut, stages)
        living = await state.living_letters()
        corrected = self._replay.corrected or {}
        letters = LettersActor(run, state, self._whole, self.entries, living, corrected, self._has_room)
        assembly.sources.append(letters)
        self._letters = letters
        await open_stages(assembly, self._note)
        letters.outlets = {place: assembly.wiring.outlet_to(outputs) for place, outputs in places.items()}
        if run.room_for_letters is not None:
            # One that fails again takes no more room than it had.
            run.room_for_letters += len(self.entries.places)
        return assembly

    async def _open_state(self, stack: AsyncExitStack) -> StateFile:
        path = self._whole.checkpoint_path
        if path is None:
            raise StateError(f"pipeline '{self._whole.name}' keeps no state, and so no dead letters")
        if not await anyio.Path(path).exists():
            raise StateError(f"{path}: there is no state file here yet, and so there are no dead letters")
        state = await open_run_state(stack, self._whole, self._options, self._clock)
        assert state is not None, path  # there is a path for it
        return state

    def _tell_left(self) -> None:
        for number, reason in list(self.entries.left.items())[:_NAMED]:
            self._note(f"dead letter {number} is left: {reason}")
        if len(self.entries.left) > _NAMED:
            self._note(f"{len(self.entries.left) - _NAMED:,} more dead letters are left")

    def _started_with(self) -> dict[str, Any]:
        return {"letters": len(self.entries.places)}

    def _saving(self, store: Store) -> Store:
        assert self._letters is not None
        return _TakingOut(store, self._letters, self._took_out)

    def _took_out(self, count: int) -> None:
        self._taken_out += count

    def _has_room(self) -> bool:
        if self._paused or self._assembly is None:
            return False
        memory: Any = self._topology.config.memory
        # Letters that are not replayed lie beyond the frontier too; what counts is what was read.
        unsettled = self._assembly.run.ledger.account.unsettled
        if unsettled < self._topology.config.saved().max_unsettled and self._assembly.bytes_held() < memory:
            return True
        for batcher in self._assembly.batchers:
            batcher.press()
        return False

    def _counters(self) -> dict[str, Any]:
        # The records were counted when they failed.
        return self._before_it.counters

    def _learned(self) -> dict[str, Any]:
        # A handful of letters teaches nothing about the pipeline's usual load.
        return self._before_it.learned

    @property
    def _before_it(self) -> Cut:
        return (self._assembly.cut if self._assembly is not None else None) or Cut()

    def _report(self) -> Report:
        return structs.replace(super()._report(), resumed=False)

    def _total(self) -> Account:
        assert self._assembly is not None
        return self._assembly.run.ledger.account.copy()

    @property
    def _dead_letters(self) -> int:
        return super()._dead_letters - self._taken_out


class _TakingOut:
    """Saves cuts in which the letters go that are settled."""

    def __init__(self, store: Store, letters: LettersActor, took_out: Any) -> None:
        self._store = store
        self._letters = letters
        self._took_out = took_out

    async def save(self, cut: Cut) -> None:
        """Save a cut together with the end of its letters."""
        settled = list(self._letters.settled)
        await self._store.save(structs.replace(cut, replayed=settled))
        self._took_out(len(settled))
