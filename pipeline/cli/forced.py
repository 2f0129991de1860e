"""The end of the process when something blocks it and it would not end by itself."""

import os
import signal
from types import FrameType

__all__ = ("end_anyway", "end_no_more")


def end_anyway(seconds: float, code: int) -> None:
    """End the process after so many seconds, whatever it does; the next run goes on from the last checkpoint."""

    def end(number: int, frame: FrameType | None) -> None:
        text = f"error: {_at_work(frame)} still blocks; ended without waiting for it"
        os.write(2, f"{text}; the next run goes on from the last checkpoint\n".encode(errors="replace"))
        os._exit(code)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _at_work(frame: FrameType | None) -> str:
    """Return the function that the loop is held up in; it is another's fault when the loop only waits."""
    if frame is None or frame.f_globals.get("__name__", "").split(".")[0] in _OF_THE_LOOP:
        return "a function"
    code = frame.f_code
    return f"{code.co_qualname}() ({code.co_filename}:{frame.f_lineno})"


_OF_THE_LOOP = ("asyncio", "selectors", "uvloop", "pipeline")


def end_no_more() -> None:
    """Take that back."""
    signal.setitimer(signal.ITIMER_REAL, 0)
