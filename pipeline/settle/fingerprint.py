"""What must be the same when saved state is resumed, what may differ, and how a difference is said."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.settle.cut import Cut, SavedCut, SourcePoint
from pipeline.settle.json_text import encode

__all__ = (
    "Fingerprint",
    "changed_stages",
    "describe_changes",
    "differences",
    "keep_unchanged",
    "labels_said",
    "shortened",
)

Fingerprint = Mapping[str, Mapping[str, Any]]
"""For each source, sink and stateful stage by name: its ``role`` and what `Stage.identity` returns."""

_LONGEST = 500
"""Characters of a text in a description."""
_ERA = 40
"""A source that starts anew numbers from ``run << 40``: no run reads that many records, so no number comes twice."""


def changed_stages(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Return the names of stages that are new, gone or not what they were, sorted."""
    return sorted(name for name in {*old, *new} if encode(old.get(name)) != encode(new.get(name)))


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Say for each stage that changed what it was and what it is now."""
    return [_difference(name, old.get(name), new.get(name)) for name in changed_stages(old, new)]


def labels_said(old: Fingerprint, new: Fingerprint) -> set[str]:
    """Return the labels of a description, see `describe_changes`, that `differences` speaks of already."""
    said: set[str] = set()
    for name in changed_stages(old, new):
        before, after = old.get(name, {}), new.get(name, {})
        title = f"{_role(after or before)} '{name}'"
        keys = _keys_changed(before, after) if before and after else ["kind"]
        said.update(title if key == "kind" else f"{title}: {key}" for key in keys)
    return said


def keep_unchanged(saved: SavedCut | None, changed: Sequence[str], new: Fingerprint, run: int, at: float) -> Cut:
    """Return the cut to go on from when some stages changed: their points are gone, all others stay.

    A source that changed and is still there starts anew under numbers that were never given, because sinks may hold
    some of its old ones beyond the frontier.
    """
    saved = saved or SavedCut(id=0, lineage="", run=run, taken_at=at, sources={}, sinks={}, counters={}, learned={})
    sources = {name: point for name, point in saved.sources.items() if name not in changed}
    for name in changed:
        if new.get(name, {}).get("role") == "source":
            sources[name] = SourcePoint(number=run << _ERA)
    return Cut(
        sources=sources,
        sinks={name: point for name, point in saved.sinks.items() if name not in changed},
        counters=saved.counters,
        learned=saved.learned,
        taken_at=at,
    )


def shortened(description: Mapping[str, str]) -> dict[str, str]:
    """Return a description whose long texts are their beginning and a digest: enough to see that one has changed."""
    return {label: _shortened(text) for label, text in description.items()}


def describe_changes(old: Mapping[str, str], new: Mapping[str, str], but_for: Collection[str] = ()) -> list[str]:
    """Say what differs between two descriptions, for the log; not what was said of some labels already.

    A label is that of a stage, ``batcher 'batch'``, or of one of its keys, ``batcher 'batch': size``.
    """
    said: list[str] = []
    before, after = {_stage(label) for label in old}, {_stage(label) for label in new}
    for label in sorted({*old, *new}):
        stage = _stage(label)
        if stage not in before or stage not in after:
            label, sentence = stage, f"{stage} {'added' if stage in after else 'removed'}"
        elif old.get(label) == new.get(label):
            continue
        else:
            sentence = f"{label} {old.get(label, 'not set')} -> {new.get(label, 'not set')}"
        if sentence not in said and label not in but_for:
            said.append(sentence)
    return said


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
    end = f"... ({len(text)} characters, sha256 {digest})"
    return text[: _LONGEST - len(end)] + end


def _stage(label: str) -> str:
    return label.partition(": ")[0]


def _difference(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
    if old is None or new is None:
        there = new if old is None else old
        return f"{_role(there)} '{name}' {'is new' if old is None else 'is gone'}"
    values = ", ".join(f"{key} {_value(old, key)} -> {_value(new, key)}" for key in _keys_changed(old, new))
    return f"{_role(new)} '{name}': {values}"


def _keys_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*old, *new} if encode(old.get(key)) != encode(new.get(key)))


def _role(stage: Mapping[str, Any] | None) -> str:
    return str((stage or {}).get("role", "stage"))


def _value(stage: Mapping[str, Any], key: str) -> str:
    return encode(stage[key]) if key in stage else "not set"
