"""Standard streams that are closed when the command begins, or whose other side is gone or full when it ends."""

import os
import sys

__all__ = ("flushed", "open_closed")


def open_closed() -> None:
    """Put something in the place of standard streams that are closed (`>&-`), before anything else is opened.

    Else the next file that is opened, such as the state, would become standard output. What is written to one that was
    closed fails as it does when its reader has gone, and reading fails too, where there would be no records without a
    word; standard error takes what nobody can hear.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _occupy(number, _broken_pipe() if number == 1 else os.open(os.devnull, os.O_WRONLY))
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdin = open(0, closefd=False)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")


def flushed(code: int) -> int:
    """Write what is left in standard output and error; return the exit code, another where only that failed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            # Python would flush again at its end, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2 if stream is sys.stderr else 1)
            if stream is sys.stdout and code == 0:
                code = 141 if isinstance(error, BrokenPipeError) else 6
    return code


def _broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _occupy(number: int, descriptor: int) -> None:
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    else:
        os.set_inheritable(number, True)
