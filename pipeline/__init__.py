"""Streaming pipelines on asyncio: YAML or Python in, settled records out, and back after a crash."""

from typing import TYPE_CHECKING, Any

from pipeline.batch import Batch, Failed, Many, Origin
from pipeline.errors import (
    ConfigError,
    DeadlineError,
    LockedError,
    PipelineError,
    RecordError,
    StageError,
    StateError,
    StorageError,
    Unavailable,
)

if TYPE_CHECKING:
    from pipeline.pipeline import Pipeline
    from pipeline.watch.report import Report

__version__ = "0.1.0"

__all__ = (
    "Batch",
    "ConfigError",
    "DeadlineError",
    "Failed",
    "LockedError",
    "Many",
    "Origin",
    "Pipeline",
    "PipelineError",
    "RecordError",
    "Report",
    "StageError",
    "StateError",
    "StorageError",
    "Unavailable",
)


def __getattr__(name: str) -> Any:
    # The engine is imported when it is asked for: a stage that needs an error class must not wait for all of it.
    if name == "Pipeline":
        from pipeline.pipeline import Pipeline

        return Pipeline
    if name == "Report":
        from pipeline.watch.report import Report

        return Report
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
