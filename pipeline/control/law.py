"""What decides the size of a batch, and what the batcher's actor tells it: the interface of the control laws.

The actor drives a law like this. It fixes `law.limit` for a batch when it opens it (or the part of it that
`AdaptiveLaw.limit_between` says), and may let a batch that is still open grow with a limit that was raised since;
lowered it must not be, or what no longer fits waits for another round.
It tells `arrived` whenever records are admitted. It closes the batch when it holds `limit` records, when another would
pass `max_bytes`, when its oldest record has been in it for `linger(size)` seconds, when `expects(remaining)` is false,
or when the engine asks for it. Closing takes a permit (`permits` of them, or `permits_for` as it measures), filling
does not: batches that open only with a permit leave records waiting upstream, where nobody counts it (measured at 90 %
load: 58 % of records over the target instead of 1 %). It tells `observe` of each batch that ended well at its first
attempt, and of no other: a failure or a retry says nothing about how long a size takes.

A law knows no time but what it is handed, so it is tested without a clock.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec import Struct

__all__ = ("Change", "Law", "Observation", "permits_for")

# Rounding a number of permits up for a sliver of overlap would only queue one more batch.
_TOLERANCE = 1.1


class Observation(Struct, frozen=True):
    """One batch that went through the sinks at its first attempt.

    `size` is its number of records as dispatched, `service` the seconds from its dispatch to its end, `wait` the
    seconds that its oldest record spent in the open batch before that, waiting for a permit included. `full` says
    that it was closed at its limit of records or bytes, `queued` that it had to wait for a permit after that.
    `permits` is how many batches could be in flight when it was dispatched, `share` the part of the limit that it was
    held to.
    """

    size: int
    service: float
    wait: float = 0.0
    full: bool = True
    permits: int = 1
    queued: bool = True
    share: float = 1.0


class Change(Struct, frozen=True):
    """A new limit and, in one word, why.

    `first` (the first batch was timed), `growth` (as far as sizes already tried allow), `fit` (the estimate was
    refined), `slower` and `faster` (the time of a batch changed, older batches were forgotten), `bounds` (held by the
    smallest or largest size allowed), `infeasible` (even the smallest batch takes longer than the target) and
    `feasible` (no longer so), `target` (another target was set). The last three may leave the limit as it was.

    `notable` is false for the small corrections between two changes worth a line in a log.
    """

    before: int
    limit: int
    reason: str
    notable: bool = True


class Law(Protocol):
    """Decides how many records the next batch may hold and how long it may wait for them."""

    @property
    def limit(self) -> int:
        """Records that the next batch to be opened may hold, at least 1; a batch keeps the limit it was opened with."""
        ...

    @property
    def max_bytes(self) -> int | None:
        """Bytes that a batch may hold, or None; a single larger record goes alone, at once."""
        ...

    @property
    def permits(self) -> int | None:
        """Batches that may be in flight when the user said so, None when the actor is to measure it (`permits_for`)."""
        ...

    def linger(self, size: int) -> float:
        """Return for how many seconds after its oldest record was admitted a batch of `size` records may stay open.

        Zero means that it closes at once, infinity that time alone never closes it. It never grows with `size`: ask
        again when records were admitted.
        """
        ...

    def expects(self, remaining: float) -> bool:
        """Say whether another record is likely within `remaining` seconds; if not, the batch closes now: waiting
        would only cost latency.

        Ask after records were admitted, with what is left of `linger`.
        """
        ...

    def arrived(self, count: int, now: float) -> None:
        """Take note of `count` records admitted together at `now` (seconds of a monotonic clock)."""
        ...

    def observe(self, seen: Observation) -> list[Change]:
        """Learn from a batch that ended well at its first attempt, in any order of completion.

        Return what changed, mostly nothing.
        """
        ...

    def learned(self) -> dict[str, object]:
        """Return what a restart needs to go on where this law is, in values that JSON can hold."""
        ...

    def restore(self, learned: Mapping[str, object]) -> bool:
        """Go on from what another run had learned.

        Return False, and change nothing, if this is not something that it can use.
        """
        ...

    def status(self) -> dict[str, float]:
        """Return numbers to show: `limit` and whatever else the law goes by; truth values as 0 and 1."""
        ...


def permits_for(path: Iterable[tuple[float, int]]) -> int:
    """Return how many batches in flight keep the slowest stage of a path busy, and no more: each further one would
    only queue.

    `path` has, for each stage that a batch goes through one after another, its mean seconds for a batch and its
    concurrency. By Little's law that is the stages' times added up over the interval at which the slowest lets a
    batch through. Between 1 and the sum of the concurrencies.
    """
    interval = total = 0.0
    most = 0
    for seconds, concurrency in path:
        if concurrency > 0:
            total += seconds
            most += concurrency
            if seconds / concurrency > interval:
                interval = seconds / concurrency
    if interval <= 0.0:
        return 1
    exact = total / interval
    whole = max(1, math.floor(exact))
    permits = whole + 1 if exact > whole * _TOLERANCE else whole
    return min(permits, most)
