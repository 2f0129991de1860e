"""When a failed attempt is made again: exponential waits with full jitter."""

from collections.abc import Callable

from msgspec import Struct

__all__ = ("Retries",)


class Retries(Struct, frozen=True):
    """The retry policy of a stage. ``random`` gives numbers in [0, 1).

    Full jitter (a wait drawn evenly from zero to the exponential bound) spreads callers that failed together; it is
    the variant that M. Brooker's "Exponential Backoff And Jitter" (2015) found to need the fewest calls.
    """

    attempts: int = 1
    first: float = 0.1
    longest: float = 10.0
    deadline: float | None = None

    def wait(self, attempt: int, spent: float, random: Callable[[], float], asked: float | None = None) -> float | None:
        """Return the seconds to wait after so many attempts, or None when there is to be no further one.

        ``spent`` are the seconds since the first attempt; ``asked`` those that the other side asked for, which are
        waited out even beyond the longest wait.
        """
        if attempt >= self.attempts:
            return None
        wait = random() * min(self.longest, self.first * 2.0 ** min(attempt - 1, 60))
        if asked is not None:
            wait = max(wait, asked)
        if self.deadline is not None and spent + wait > self.deadline:
            return None
        return wait
