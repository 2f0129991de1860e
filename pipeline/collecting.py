"""How seldom the garbage collector looks, while a process of ours starts and while records pass."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ("START", "YOUNG", "collecting_less")

START = 500_000
"""Objects that are made before the collector looks, more than any start makes: nearly all of them stay, and to look at
them each 700 takes a tenth of the start, once at 50,000 still a twentieth."""

YOUNG = 50_000
"""Objects that are made before the collector looks again: records come and go by reference counts alone, and looking
at them at each 700 costs a tenth of the run."""


@contextmanager
def collecting_less() -> Generator[None, None, None]:
    """Let the collector look at nothing that is there already, and seldom at what comes."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
