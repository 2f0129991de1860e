"""Where an actor's batches go: to the one stage behind it, or to each of several at a fan-out."""

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from pipeline.batch import Batch, SourceSpan
from pipeline.flow.ownership import copy_records
from pipeline.flow.run import Failure, Halt, Run
from pipeline.spans import Spans

__all__ = ("Branch", "Door", "Outlet")


class Door(Protocol):
    """Where batches go in: the inbox of an actor, or the actor itself when it works in the task of who sends."""

    async def send(self, batch: Batch) -> None:
        """Take a batch, waiting while there is no room for it."""
        ...

    async def emptied(self) -> None:
        """Wait until nothing that was sent is left inside."""
        ...

    def close(self) -> None:
        """Take note that nothing more comes."""
        ...


class Branch(Struct):
    """One stage behind an actor. ``when`` picks the records that enter it (None: all); ``otherwise`` takes what no
    sibling took; ``child`` names the branch in the origins where branches meet again.
    """

    stage: str
    door: Door
    when: Callable[[Any], Any] | None = None
    otherwise: bool = False
    child: str | None = None
    origins: bool = False
    """Whether ``when`` takes the record's origin as its second argument."""


class Outlet:
    """Sends batches on, and says when no more come. Records that no branch takes are filtered."""

    def __init__(self, run: Run, branches: list[Branch]) -> None:
        self._run = run
        self.branches = branches
        self._plain = branches[0].door if len(branches) == 1 and self._takes_all(branches[0]) else None

    async def send(self, batch: Batch) -> None:
        """Send a batch to every branch that takes any of it, at the pace of the slowest.

        A batch that has no records left settles instead. Raises `Halt` when ``when`` fails a record under ``stop``;
        what came before it was sent.
        """
        if not batch.records:
            self._end(batch)
        elif self._plain is not None:
            await self._plain.send(batch)
        else:
            await self._route(batch)

    async def emptied(self) -> None:
        """Wait until the stages behind have taken all that was sent."""
        for branch in self.branches:
            await branch.door.emptied()

    @property
    def worked(self) -> float:
        """Seconds that the stage behind has worked within `send`; 0 where it has a task of its own."""
        return getattr(self._plain, "worked", 0.0)

    def close(self) -> None:
        """Tell the stages behind that nothing more comes."""
        for branch in self.branches:
            branch.door.close()

    def _end(self, batch: Batch) -> None:
        self._run.ledger.settle_spans(batch.spans)
        if batch.ticket is not None:
            batch.ticket.close()

    async def _route(self, batch: Batch) -> None:
        ticket = batch.ticket
        masks, batch, halt = self._masks(batch)
        batch.ticket = ticket
        parts: list[tuple[Branch, Batch]] = []
        for branch, mask in zip(self.branches, masks, strict=True):
            if any(mask):
                # Each branch but the last gets records of its own: whoever is behind it may change them.
                records = batch.records if not parts else copy_records(batch.records)
                part = batch.branch(branch.child, records)
                part.keep(mask)
                parts.append((branch, part))
        if not parts:
            self._end(batch)
        else:
            self._run.ledger.share_spans(batch.spans, len(parts) - 1)
            if batch.ticket is not None:
                batch.ticket.open += len(parts) - 1
            for branch, part in parts:
                await branch.door.send(part)
        if halt is not None:
            raise halt

    def _masks(self, batch: Batch) -> tuple[list[list[bool]], Batch, Halt | None]:
        """Return which records each branch takes, after taking out those that ``when`` failed on."""
        while True:
            masks: list[list[bool]] = []
            failed: tuple[str, int, Exception] | None = None
            for branch in self.branches:
                mask, error = self._mask(branch, batch)
                if error is not None:
                    failed = (branch.stage, len(mask), error)
                    break
                masks.append(mask)
            if failed is None:
                self._fill_otherwise(masks, len(batch.records))
                return masks, batch, None
            stage, index, error = failed
            halt = self._run.fail(stage, batch, index, Failure(batch.records[index], error))
            if halt is not None:
                head = batch_before(self._run, batch, index)
                if head is None:
                    return [[False]] * len(self.branches), Batch([]), halt
                # Another branch may stop the run at a record before this one; then that is where it ends.
                masks, head, earlier = self._masks(head)
                return masks, head, earlier or halt
            batch.keep([i != index for i in range(len(batch.records))])

    @staticmethod
    def _mask(branch: Branch, batch: Batch) -> tuple[list[bool], Exception | None]:
        if branch.when is None:
            return [not branch.otherwise] * len(batch.records), None
        mask: list[bool] = []
        more = (batch.origins(),) if branch.origins else ()
        try:
            mask.extend(map(bool, map(branch.when, batch.records, *more)))
        except Exception as error:
            return mask, error
        return mask, None

    def _fill_otherwise(self, masks: list[list[bool]], count: int) -> None:
        others = [i for i, branch in enumerate(self.branches) if branch.otherwise]
        if others:
            taken = [any(mask[i] for mask in masks) for i in range(count)]
            for index in others:
                masks[index] = [not is_taken for is_taken in taken]

    @staticmethod
    def _takes_all(branch: Branch) -> bool:
        return branch.when is None and not branch.otherwise and branch.child is None


def join(run: Run, batches: list[Batch]) -> Batch:
    """Return one batch of several; of a number whose children came in more than one it owes a single share."""
    joined = Batch.join(batches)
    if len(batches) == 1 or joined.children is None:
        return joined
    once: dict[str, Spans] = {}
    surplus: list[SourceSpan] = []
    for source, low, high in joined.spans:
        seen = once.setdefault(source, Spans())
        surplus += [(source, max(low, first), min(high, last)) for first, last in seen if first < high and low < last]
        seen.add(low, high)
    joined.spans = [(source, low, high) for source, spans in once.items() for low, high in spans]
    if surplus:
        run.ledger.settle_spans(surplus)
    return joined


def batch_before(run: Run, batch: Batch, index: int) -> Batch | None:
    """Return the part of a batch before a record that stops the run; None when it can't be told apart."""
    if not batch.ascending:
        return None
    head, _, shared = batch.split(index)
    run.ledger.share(shared)
    return head
