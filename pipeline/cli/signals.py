"""SIGINT and SIGTERM from the first moment of the command on: an orderly end, never a traceback."""

import os
import signal

# What is imported here comes before the handlers are set, so it is as little as can be.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ("Signals", "Stopped")

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Raised where the command is to end at once with a code, and nothing more is to be said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Signals:
    """Counts the signals that ask the command to stop. While nobody listens, one ends the process on the spot.

    Nothing is under way then that a kill could hurt, whereas an exception in the midst of an import may be swallowed.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._listener: Callable[[int, int], None] | None = None

    @property
    def exit_code(self) -> int:
        """128 and the number of the first signal; 0 when none came."""
        return 128 + self.received[0] if self.received else 0

    def install(self) -> None:
        """Catch the signals, also where a shell started us in the background with SIGINT ignored."""
        for number in _CAUGHT:
            signal.signal(number, self._receive)

    def ignore(self) -> None:
        """Let no signal disturb the last moments."""
        for number in _CAUGHT:
            signal.signal(number, signal.SIG_IGN)

    def listen(self, listener: "Callable[[int, int], None] | None") -> None:
        """Call a listener with each signal and its count, between any two steps of the main thread; None for nobody."""
        self._listener = listener

    def _receive(self, number: int, frame: "FrameType | None") -> None:
        self.received.append(number)
        if self._listener is None:
            os._exit(self.exit_code)
        self._listener(number, len(self.received))
