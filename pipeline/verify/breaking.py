"""A child that is stopped by a signal at some moment, and whether it ended as it should."""

import json
import signal
import time
from contextlib import suppress
from typing import Any

from pipeline.verify.child import Child, Ended

__all__ = ("last_words", "stop", "trouble", "wrong_end")


def stop(child: Child, moment: float, number: signal.Signals, patience: float) -> tuple[Ended, float | None]:
    """Send a signal after some seconds; return the end and the seconds from the signal to it, None if it came first.

    A child that has not ended ``patience`` seconds after a signal that it may answer to is killed.
    """
    ended = child.wait(moment)
    if ended is not None:
        return ended, None
    if number == signal.SIGKILL:
        return child.kill(), 0.0
    asked = time.monotonic()
    child.send(number)
    ended = child.wait(patience) or child.kill()
    return ended, time.monotonic() - asked


def wrong_end(ended: Ended, stopping: float | None, number: signal.Signals, within: float) -> str:
    """Return what is wrong with how a child ended after `stop`; empty when nothing is."""
    # Before Python has installed the handler a signal kills in the usual way, which a shell shows as 143 too;
    # one that comes in the very last moment finds a run that is done.
    allowed = {0} if stopping is None else {-number, 0} if number == signal.SIGKILL else {143, -number, 0}
    if ended.code not in allowed:
        return f"ended with {ended.code} after {number.name}: {last_words(ended)}"
    if stopping is not None and stopping > within:
        return f"took {stopping:.1f} s to stop"
    return trouble(ended) if ended.code == 0 else ""


def trouble(ended: Ended) -> str:
    """Return what is wrong with a child that should have ended well."""
    return f"exit {ended.code}: {last_words(ended)}" if ended.code or ended.traced else ""


def last_words(ended: Ended) -> str:
    """Return the error that a child logged as JSON in the end; the last lines that it said, where there is none."""
    lines = ended.said.strip().splitlines()[-3:]
    for line in reversed(lines):
        with suppress(ValueError):
            logged: Any = json.loads(line)
            if isinstance(logged, dict) and "error" in logged:
                return str(logged["error"])  # pyright: ignore[reportUnknownArgumentType]
    return " | ".join(lines)
