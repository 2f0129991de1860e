"""The command: ``pipeline``, and ``python -m pipeline``."""

import gc
import os
import sys

from pipeline.cli.signals import Signals, Stopped
from pipeline.cli.streams import flushed, open_closed
from pipeline.collecting import START

__all__ = ("main",)


def main() -> int:
    """Run the command with the arguments of the process and return its exit code."""
    gc.set_threshold(START)
    signals = Signals()
    signals.install()
    open_closed()
    try:
        # All that is slow comes after this line, so that a signal finds its handler.
        from pipeline.cli.main import invoke

        code = invoke(sys.argv[1:], signals)
    except Stopped as stopped:
        code = stopped.code
    signals.ignore()
    code = flushed(code)
    import threading

    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(code)  # a function that blocks in a thread must not keep us
    gc.freeze()  # memory goes with the process: nobody needs to look through it for what could be let go of
    return code


if __name__ == "__main__":
    sys.exit(main())
