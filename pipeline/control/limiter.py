"""How often a stage may be called: a token bucket that lends."""

__all__ = ("Limiter",)


class Limiter:
    """Tokens drip in at ``rate`` a second, up to ``burst`` of them; each call takes one.

    A call that finds none takes it all the same and waits until its debt is paid, so that whoever waits is served in
    the order of asking and nobody has to ask twice. Over any stretch of ``s`` seconds at most ``burst + rate * s``
    calls begin.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def empty(self) -> None:
        """Begin without a token: another bucket for the same rate was there before."""
        self._tokens = 0.0

    def take(self, now: float, part: float = 1.0) -> float:
        """Take a token; returns the seconds to wait before the call that it is for."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate * part)
        self._at = max(self._at, now)
        self._tokens -= 1.0
        return max(0.0, -self._tokens / (self._rate * part))

    def give_back(self) -> None:
        """Return a token whose call was not made."""
        self._tokens = min(self._burst, self._tokens + 1.0)
