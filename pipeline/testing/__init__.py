"""The kit for testing stages and pipelines: time by hand, stages over lists, crash points, the contract of a stage.

Everything here works with pytest, with any other runner, and in a notebook: what fails raises `AssertionError` with a
sentence.
"""

from pipeline.testing.clock import ManualClock, settle
from pipeline.testing.crashes import CrashAt, Crashed
from pipeline.testing.lists import ListSink, ListSource, PlainListSink, Stored, Wait
from pipeline.testing.opening import MemoryState, batch_of, opened
from pipeline.testing.processors import check_processor
from pipeline.testing.sinks import check_sink
from pipeline.testing.sources import check_source

__all__ = (
    "CrashAt",
    "Crashed",
    "ListSink",
    "ListSource",
    "ManualClock",
    "MemoryState",
    "PlainListSink",
    "Stored",
    "Wait",
    "batch_of",
    "check_processor",
    "check_sink",
    "check_source",
    "opened",
    "settle",
)
