"""A process that a coordinator spawned: a worker, or the writer. ``python -m pipeline.workers ROLE DESCRIPTOR``."""

import asyncio
import os
import signal
import sys
from contextlib import suppress

__all__ = ("main",)


def main() -> int:
    """Do what the first line of standard input says, until told to leave; return the exit code."""
    # A terminal sends Ctrl-C to all of its processes, a service manager its SIGTERM: only the coordinator decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    from pipeline.workers.hearing import hear_setup

    descriptor = int(sys.argv[2])
    os.set_inheritable(descriptor, False)
    setup = hear_setup()
    if setup is None:
        return 1
    from pipeline.errors import PipelineError
    from pipeline.standard import printing_aside
    from pipeline.workers.starting import serve
    from pipeline.workers.words import Refused, line_of

    try:
        with printing_aside():
            asyncio.run(serve(setup, descriptor))
    except PipelineError as error:
        os.write(descriptor, line_of(Refused(code=int(error.exit_code), error=str(error))))
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # a function that blocks in a thread must not keep us
