"""What a service is told of the records that were submitted to it, as each of them comes to its end."""

from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.batch import Batch, Origin
from pipeline.settle.cut import Cut, Letter
from pipeline.settle.ledger import Watcher

__all__ = ("Witness",)


class Witness(Watcher, Protocol):
    """Called by the actors within a turn of the loop; must not wait. Numbers are those that the engine gave."""

    def answers(self, sources: str | Sequence[str]) -> bool:
        """Tell whether somebody waits to hear what became of all records of these sources.

        Then what fails is told to them, where it would end a run.
        """
        ...

    def wrote(self, sink: str, batch: Batch) -> None:
        """Take note of records that a sink has written."""
        ...

    def failed(self, stage: str, origin: Origin, position: str, failure: Any, letter: Letter | None) -> None:
        """Take note of a record that failed for good, and of its letter if it has one."""
        ...

    def in_time(self, batch: Batch) -> Sequence[bool] | None:
        """Tell which records of a batch somebody still waits for; None: all of them."""
        ...

    def expects(self, gathered: int, permits: int) -> bool | None:
        """Tell whether a batch that has gathered so many should wait for more, where so many may be in flight.

        None: nobody knows better than the batcher's law.
        """
        ...

    def crowd(self) -> int:
        """Return the most that waited for an answer at a time, lately."""
        ...

    def saved(self, cut: Cut) -> None:
        """Take note that a cut is saved."""
        ...
