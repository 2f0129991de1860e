"""A circuit breaker: whether a stage may call what it depends on, after so many calls that found it unavailable."""

from typing import Literal

__all__ = ("Breaker", "BreakerState")

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Closed, calls are made. ``failures`` unavailable ones in a row open it, and none is made for ``reset`` seconds.

    Then one call, the probe, is let through (half-open): when it fails, the breaker is open for as long again; any
    success, be it of a call that was under way all the time, closes it. What fails for another reason says nothing.
    The idea is M. Nygard's, "Release It!" (2007).
    """

    __slots__ = ("_count", "_failures", "_opened", "_reset", "state")

    def __init__(self, failures: int, reset: float) -> None:
        self.state: BreakerState = "closed"
        self._failures = failures
        self._reset = reset
        self._count = 0
        self._opened = 0.0

    @property
    def at_the_brink(self) -> bool:
        """Whether one more failure opens it."""
        return self.state == "closed" and self._count + 1 >= self._failures

    def wait(self, now: float) -> float | None:
        """Return the seconds until a call may be made; None while nobody knows, because a probe is under way."""
        if self.state == "closed":
            return 0.0
        return max(0.0, self._opened + self._reset - now) if self.state == "open" else None

    def admit(self, now: float) -> bool:
        """Tell whether a call may be made; one that is let through an open breaker is its probe."""
        if self.state == "open" and now >= self._opened + self._reset:
            self.state = "half_open"
            return True
        return self.state == "closed"

    def succeeded(self) -> bool:
        """Note a call that got through; returns whether that closed the breaker."""
        self._count = 0
        changed = self.state != "closed"
        self.state = "closed"
        return changed

    def failed(self, now: float, probe: bool = False) -> bool:
        """Note a call that found the other side unavailable; returns whether that opened the breaker (again)."""
        if self.state == "closed":
            self._count += 1
            return self._count >= self._failures and self.trip(now)
        return probe and self.trip(now)

    def trip(self, now: float) -> bool:
        """Open it, whatever was counted, because nothing gets through; returns whether it was not open before."""
        if self.state == "open":
            return False
        self.state = "open"
        self._opened = now
        self._count = 0
        return True

    def release(self) -> None:
        """Take note that the probe ended and says nothing: the next call is the probe."""
        if self.state == "half_open":
            self.state = "open"
