"""A process that a coordinator spawned: a worker, or the writer. ``python -m pipeline.workers ROLE DESCRIPTOR``."""

import gc
import os
import signal
import sys
from contextlib import suppress

from pipeline.collecting import START

__all__ = ("main",)


def main() -> int:
    """Do what the first line of standard input says, until told to leave; return the exit code."""
    gc.set_threshold(START)
    # A terminal sends Ctrl-C to all of its processes, a service manager its SIGTERM: only the coordinator decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    from pipeline.workers.starting import attend

    descriptor = int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    return attend(descriptor)


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # a function that blocks in a thread must not keep us
