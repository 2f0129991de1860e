"""Which partitions there are, which of them are done, and how their records ended: kept in the state file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from msgspec import structs

from pipeline.errors import StateError
from pipeline.plan.topology import Topology
from pipeline.settle.partitions import SavedPartition
from pipeline.settle.state import StateFile, edit_state
from pipeline.settle.view import open_view, real_path
from pipeline.stage import Sink, Source
from pipeline.watch.report import Account
from pipeline.workers.plan import is_hidden, state_folder, state_of

__all__ = ("Books", "is_divided", "refuse_undivided", "sum_of")

_LETTERS = 500
"""Dead letters that are taken over in one transaction."""


async def is_divided(topology: Topology) -> bool:
    """Tell whether workers began what the state file of a plan holds."""
    path = topology.checkpoint_path
    if path is None or not await to_thread.run_sync(os.path.exists, path):
        return False
    with suppress(StateError):  # the run itself will say what is wrong with it
        async with open_view(path) as view:
            return bool(await view.partitions())
    return False


async def refuse_undivided(topology: Topology) -> None:
    """See that workers can go on from what the state file of a plan holds.

    :raises StateError: when one process began it.
    """
    path, begun = topology.checkpoint_path, False
    if path is None or not await to_thread.run_sync(os.path.exists, path):
        return
    with suppress(StateError):  # the run itself will say what is wrong with it
        async with open_view(path) as view:
            begun = not await view.partitions() and bool(await view.cuts(limit=1))
    if begun:
        raise _undivided(real_path(path))


def sum_of(accounts: Sequence[Account]) -> Account:
    """Return the sum of accounts."""
    names = Account.__struct_fields__
    return Account(**{name: sum(getattr(account, name) for account in accounts) for name in names})


class Books:
    """The partitions of one run of the coordinator."""

    def __init__(self, topology: Topology, state: StateFile) -> None:
        self._topology = topology
        self._state = state
        self._saved: list[SavedPartition] = []
        self._before: dict[int, Account] = {}
        self._now: dict[int, Account] = {}
        self.resumed = False
        """Whether there were partitions when this run began."""

    async def open(self) -> None:
        """Read what is saved.

        :raises StateError: when one process began what the state file holds.
        """
        self._saved = await self._state.partitions()
        self.resumed = bool(self._saved)
        if not self._saved and self._state.cut is not None:
            raise _undivided(self._state.path)
        for saved in self._saved:
            self._before[saved.number] = await self._account_of(saved)

    async def divide(self) -> None:
        """Look for what is new in the source, and save it as further partitions."""
        source = self._topology.sources[0].spec
        assert isinstance(source, Source)
        known = [saved.partition for saved in self._saved]
        size = int(self._topology.config.partition)
        found = await to_thread.run_sync(source.divide, size, known)
        if found:
            await self._state.divide(found)
            self._saved = await self._state.partitions()

    def __len__(self) -> int:
        return len(self._saved)

    def __getitem__(self, number: int) -> SavedPartition:
        return self._saved[number]

    def pending(self) -> list[int]:
        """Return the partitions that are not done, in order."""
        return [saved.number for saved in self._saved if saved.account is None]

    def is_done(self, number: int) -> bool:
        """Tell whether all of a partition is settled."""
        return self._saved[number].account is not None

    def done_size(self) -> int:
        """Return the bytes or records of the partitions that are done."""
        return sum(saved.partition.size for saved in self._saved if saved.account is not None)

    def size(self) -> int:
        """Return the bytes or records of all partitions."""
        return sum(saved.partition.size for saved in self._saved)

    def title(self, number: int) -> str:
        """Return how people call a partition."""
        return f"partition {number} ({self._saved[number].partition.name})"

    def state_of(self, number: int) -> Path:
        """Return a partition's state file."""
        return state_of(self._topology, self._state.lineage, number)

    # --- accounts ---

    def count(self, number: int, total: Account) -> None:
        """Take note of how the records of all runs of a partition have ended so far."""
        self._now[number] = total

    def settled(self, number: int) -> int:
        """Return how many records of a partition are known to be settled."""
        return self._now.get(number, self._before.get(number, Account())).settled

    def total(self) -> Account:
        """Return the account of all runs."""
        return sum_of([self._now.get(number, before) for number, before in self._every()])

    def account(self) -> Account:
        """Return the account of this run alone."""
        before = sum_of([before for number, before in self._every() if number in self._now])
        now = sum_of(list(self._now.values()))
        names = Account.__struct_fields__
        return Account(**{name: max(getattr(now, name) - getattr(before, name), 0) for name in names})

    def _every(self) -> Iterator[tuple[int, Account]]:
        for saved in self._saved:
            yield saved.number, self._before.get(saved.number, Account())

    # --- what becomes of a partition ---

    async def finish(self, number: int, letters: int) -> None:
        """Note that a partition is done, for good; its dead letters are ours from here on, and its state goes.

        It has so many ``letters``: for none at all its state need not be opened.
        """
        if letters:
            await self.take_letters(number)
        account = structs.asdict(self._now[number])
        await self._state.partition_done(number, account)
        self._saved[number].account = account
        await self.forget_state(number)

    async def take_letters(self, number: int) -> None:
        """Move the dead letters of a partition that nobody runs into our state file."""
        path = self.state_of(number)
        if path.exists():
            await _move_letters(path, self._topology.name, self._state)

    async def forget_state(self, number: int) -> None:
        """Take away the state file of a partition."""
        path = self.state_of(number)

        def remove() -> None:
            # Beside it may lie what a worker was about to make when it was killed. The file itself goes last: by it
            # the next run knows that there is something left, should we be killed here.
            for left in (*path.parent.glob(f"{path.name}?*"), *path.parent.glob(f".{path.name}.*"), path):
                left.unlink(missing_ok=True)

        await to_thread.run_sync(remove)

    async def clear_leftovers(self, merged: int) -> None:
        """Take away what earlier runs left: states of partitions that are done, and whatever is of older lineages."""
        import shutil  # takes every module of archives along, and a run without workers needs only `is_divided`

        for number in range(len(self._saved)):
            if self.is_done(number) and self.state_of(number).exists():
                await self.forget_state(number)
            if number < merged:
                self.discard_outputs(number, self._state.lineage)
        folder = state_folder(self._topology)
        for older in [each for each in folder.glob("*") if each.name != self._state.lineage]:
            states = sorted(older.glob("*.db"))
            for path in states:
                with suppress(StateError):
                    await _move_letters(path, self._topology.name, self._state)
            for path in states:
                self.discard_outputs(int(path.stem), older.name)
            shutil.rmtree(older, ignore_errors=True)
        await self.remove_folders()

    async def remove_folders(self) -> None:
        """Take away the folders of the states where nothing is in them; nobody may be about to open one there."""
        await to_thread.run_sync(_remove_empty, state_folder(self._topology) / self._state.lineage)

    def discard_outputs(self, number: int, lineage: str) -> None:
        """Take away what a partition wrote to be merged."""
        for planned in self._topology.sinks:
            if isinstance(planned.spec, Sink) and is_hidden(self._topology, planned.spec):
                planned.spec.discard_partition(number, lineage)

    async def _account_of(self, saved: SavedPartition) -> Account:
        if saved.account is not None:
            return Account(**saved.account)
        path = self.state_of(saved.number)
        if not path.exists():
            return Account()
        async with open_view(path) as view:
            cuts = await view.cuts(limit=1)
        counters: Mapping[str, Mapping[str, int]] = cuts[0].counters if cuts else {}
        return Account(**counters.get("account", {}))


def _remove_empty(folder: Path) -> None:
    """Take away the folder of a lineage, and the one around it, where nothing is in them."""
    with suppress(OSError):
        folder.rmdir()
    with suppress(OSError):
        folder.parent.rmdir()


def _undivided(path: Path) -> StateError:
    return StateError(
        f"{path}: one process began this, and its place can't be divided; go on without workers, or begin anew with "
        "--fresh"
    )


async def _move_letters(path: Path, pipeline: str, state: StateFile) -> None:
    async with edit_state(path, pipeline=pipeline) as other:
        while letters := await other.letters(limit=_LETTERS):
            # Taken over first, and by what they are: after a kill in between they come again and are known.
            await state.take_letters(letters)
            await other.delete_letters([letter.id for letter in letters if letter.id is not None])
