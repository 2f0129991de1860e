"""The end of the process when something blocks it and it would not end by itself."""

import os
import signal
from types import FrameType

__all__ = ("end_anyway", "end_no_more")


def end_anyway(seconds: float, code: int) -> None:
    """End the process after so many seconds, whatever it does; the next run goes on from the last checkpoint."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, b"error: a function still blocks; ended without waiting for it\n")
        os._exit(code)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def end_no_more() -> None:
    """Take that back."""
    signal.setitimer(signal.ITIMER_REAL, 0)
