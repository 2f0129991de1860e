"""What the tests of the state file share."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from pipeline.settle.cut import Change, Cut, Letter, SourcePoint
from pipeline.settle.state import StateFile, open_state

__all__ = ("FINGERPRINT", "change", "cut_at", "letter", "opened")

FINGERPRINT: Mapping[str, Mapping[str, Any]] = {
    "csv": {"role": "source", "path": "a.csv"},
    "out": {"role": "sink", "path": "out.jsonl"},
    "dedupe": {"role": "processor", "by": "id"},
}


def opened(path: Path, **options: Any) -> AbstractAsyncContextManager[StateFile]:
    """Open a state as pipeline "x" does."""
    given: dict[str, Any] = {"pipeline": "x", "fingerprint": FINGERPRINT, **options}
    return open_state(path, **given)


def cut_at(number: int, **more: Any) -> Cut:
    """Return a cut whose only source has come to a number."""
    given: dict[str, Any] = {"taken_at": float(number), **more}
    return Cut(sources={"csv": SourcePoint(cursor=number, number=number)}, **given)


def letter(number: int, **more: Any) -> Letter:
    """Return a dead letter."""
    given: dict[str, Any] = {"stage": "call", "source": "csv", "error_type": "ValueError", "error": "bad"}
    given |= {"at": float(number), "run": 1, "lineage": "x", **more}
    return Letter(number=number, **given)


def change(number: int, key: Any, value: Any, source: str = "csv") -> Change:
    """Return a change of the stage dedupe."""
    return Change(stage="dedupe", key=key, source=source, number=number, value=value)
