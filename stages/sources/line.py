"""The line before an inlet: the highest priority goes first, and nobody waits for ever behind others."""

import heapq
from collections import deque

from pipeline.stage import Place

__all__ = ("Line",)

_WORTH_A_SWEEP = 64


class Line:
    """Places in the order in which they are to be read: by priority, the highest first, within it as they came.

    Whoever has waited for ``patience`` seconds goes before all others, the one who came first before the next: so a
    stream of high priorities delays a low one, and never starves it. Taking or adding one costs the same, however many
    wait.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._by_priority: dict[int, deque[Place]] = {}
        self._priorities: list[int] = []  # a heap of the negatives of those that may have places
        self._count = 0
        self._withdrawn = 0

    def __len__(self) -> int:
        return self._count

    def add(self, place: Place, now: float) -> None:
        """Let a place wait from now on (seconds)."""
        places = self._by_priority.get(place.priority)
        if places is None:
            places = self._by_priority[place.priority] = deque()
            heapq.heappush(self._priorities, -place.priority)
        place.since = now
        place.waits = True
        places.append(place)
        self._count += 1

    def take(self, count: int, now: float) -> list[Place]:
        """Return the next places, as many as there are up to ``count``; they wait no more."""
        taken = self._overdue(count, now) if len(self._by_priority) > 1 else []
        while len(taken) < count and self._priorities:
            places = self._by_priority[-self._priorities[0]]
            while places and len(taken) < count:
                self._pass(places.popleft(), taken)
            if not places:
                del self._by_priority[-heapq.heappop(self._priorities)]
        self._count -= len(taken)
        return taken

    def withdraw(self, place: Place) -> bool:
        """Take a place out; tell whether it still waited."""
        if not place.waits:
            return False
        place.waits = False
        place.record = None
        self._count -= 1
        self._withdrawn += 1
        if self._withdrawn > max(_WORTH_A_SWEEP, self._count):
            self._sweep()
        return True

    def _pass(self, place: Place, taken: list[Place]) -> None:
        if place.waits:
            place.waits = False
            taken.append(place)
        else:
            self._withdrawn -= 1

    def _overdue(self, count: int, now: float) -> list[Place]:
        taken: list[Place] = []
        while len(taken) < count:
            oldest = min((places[0] for places in self._by_priority.values() if places), key=_since, default=None)
            if oldest is None or now - oldest.since < self._patience:
                break
            self._pass(self._by_priority[oldest.priority].popleft(), taken)
        return taken

    def _sweep(self) -> None:
        """Drop what was withdrawn: in a line that nobody reads it would pile up."""
        swept = {priority: deque(filter(_waits, places)) for priority, places in self._by_priority.items()}
        self._by_priority = {priority: places for priority, places in swept.items() if places}
        self._priorities = sorted(-priority for priority in self._by_priority)
        self._withdrawn = 0


def _since(place: Place) -> tuple[float, int]:
    return place.since, -place.priority


def _waits(place: Place) -> bool:
    return place.waits
