"""What a run did lately: its counters of a while ago against those of now."""

from bisect import bisect_right
from collections import deque

from msgspec import Struct, structs

__all__ = ("Counted", "Lately", "Window")


class Counted(Struct):
    """Counters of a run at a moment, in seconds since its beginning.

    ``ended`` are source records that ended in any way, ``failed`` those of them that are dead-lettered, collected or
    skipped; ``batches`` and ``batched`` are what batchers have sent, and the records in it.
    """

    seconds: float = 0.0
    read: int = 0
    ended: int = 0
    failed: int = 0
    batches: int = 0
    batched: int = 0


class Lately(Struct):
    """What a run did in the last ``seconds``, as they came to pass: fewer than asked for while it is young.

    ``rate`` is records that ended, a second; ``error_rate`` the share of them that failed, 0 to 1.
    """

    seconds: float = 0.0
    read: int = 0
    ended: int = 0
    failed: int = 0
    batches: int = 0
    rate: float = 0.0
    error_rate: float = 0.0
    average_batch: float = 0.0


class Window:
    """Keeps counters of the last ``longest`` seconds, no two within ``step`` seconds; so many, and no more."""

    def __init__(self, longest: float = 3600.0, step: float = 1.0) -> None:
        self._longest = longest
        self._step = step
        self._kept: deque[Counted] = deque([Counted()])

    def add(self, now: Counted) -> None:
        """Keep these counters, if the last ones are old enough. They must not run backwards."""
        if now.seconds - self._kept[-1].seconds >= self._step:
            self._kept.append(now)
        while len(self._kept) > 1 and self._kept[1].seconds <= now.seconds - self._longest:
            self._kept.popleft()

    def lately(self, now: Counted, seconds: float) -> Lately:
        """Return what changed since the last counters that are at least so many seconds old; the oldest if none is."""
        place = bisect_right(self._kept, now.seconds - seconds, key=lambda each: each.seconds) - 1
        before = self._kept[max(place, 0)]
        seconds, read, ended, failed, batches, batched = (
            here - there for here, there in zip(structs.astuple(now), structs.astuple(before), strict=True)
        )
        rate = ended / seconds if seconds > 0 else 0.0
        return Lately(
            seconds,
            read,
            ended,
            failed,
            batches,
            rate,
            failed / ended if ended else 0.0,
            batched / batches if batches else 0.0,
        )
