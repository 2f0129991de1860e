"""Streaming pipelines on asyncio: YAML or Python in, settled records out, and back after a crash."""

# Nothing is imported until it is asked for: the command must be able to answer a signal before anything slow, and a
# stage that needs an error class must not wait for all of the engine.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pipeline.batch import Batch, Failed, Many, Origin
    from pipeline.errors import (
        Closed,
        ConfigError,
        DeadlineError,
        DeadlinePassed,
        LockedError,
        Overloaded,
        PipelineError,
        RecordError,
        RecordFailed,
        Refused,
        StageError,
        StateError,
        StorageError,
        SubmitError,
        Unavailable,
        Unfinished,
    )
    from pipeline.pipeline import Pipeline
    from pipeline.watch.report import Report

__version__ = "0.1.0"

__all__ = (
    "Batch",
    "Closed",
    "ConfigError",
    "DeadlineError",
    "DeadlinePassed",
    "Failed",
    "LockedError",
    "Many",
    "Origin",
    "Overloaded",
    "Pipeline",
    "PipelineError",
    "RecordError",
    "RecordFailed",
    "Refused",
    "Report",
    "StageError",
    "StateError",
    "StorageError",
    "SubmitError",
    "Unavailable",
    "Unfinished",
)


_MODULES = {
    "pipeline.batch": ("Batch", "Failed", "Many", "Origin"),
    "pipeline.pipeline": ("Pipeline",),
    "pipeline.watch.report": ("Report",),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    from importlib import import_module

    module = next((module for module, names in _MODULES.items() if name in names), "pipeline.errors")
    found = globals()[name] = getattr(import_module(module), name)
    return found
