"""Work that is cancelled at one chosen await, so that a test can try every one of them."""

from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

import anyio

__all__ = ("Interrupted", "cancel_points", "interrupted")

T = TypeVar("T")

_EVERY = 40
"""Awaits that are all tried; behind them steps grow, so that long work takes tens of tries and not thousands."""


class Interrupted(Generic[T]):
    """What became of work: ``completed`` with a ``result``, or cancelled; ``awaits`` is how often it had to wait."""

    def __init__(self) -> None:
        self.completed = False
        self.awaits = 0
        self.result: T | None = None


async def interrupted(work: Awaitable[T], at: int) -> Interrupted[T]:
    """Do work and cancel it at its ``at``-th await, counted from 1, as the engine cancels: by a cancel scope."""
    outcome: Interrupted[T] = Interrupted()
    with anyio.CancelScope() as scope:
        outcome.result = await _Counted(work, at, outcome, scope.cancel)
        outcome.completed = True
    return outcome


def cancel_points() -> Iterator[int]:
    """Return which awaits to cancel at: each of the first ones, and ever fewer of the later."""
    at = 1
    while True:
        yield at
        at += 1 if at < _EVERY else at // 4


class _Counted(Generic[T]):
    """Passes on what work waits for, and counts."""

    def __init__(self, work: Awaitable[T], at: int, outcome: Interrupted[T], cancel: Callable[[], None]) -> None:
        self._work = work
        self._at = at
        self._outcome = outcome
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, T]:
        steps: Any = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                waited = next(steps) if error is None else steps.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            self._outcome.awaits += 1
            if self._outcome.awaits == self._at:
                self._cancel()
            error = None
            try:
                yield waited
            except BaseException as raised:  # thrown on into the work, which it is meant for
                error = raised
