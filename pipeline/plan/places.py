"""Which files stages name, and where two stages would get into each other's way."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.plan.wiring import Say
from pipeline.stage import file_keys

if TYPE_CHECKING:
    from pipeline.plan.topology import PlannedStage

__all__ = ("check_places",)


class _Place(NamedTuple):
    """A file that a stage names; with a table where the file is a database, which is empty for a query."""

    key: str
    text: str
    path: str
    table: str | None


def check_places(stages: Sequence["PlannedStage"], say: Say) -> None:
    """Say which sinks write to what a source reads, or to what another sink writes to.

    Only paths that stand for one file are compared, as they are written: no globs, no templates, no links.
    """
    taken: dict[str, list[tuple[PlannedStage, _Place]]] = {}
    for stage in sorted(stages, key=lambda stage: stage.role == "sink"):
        places = list(_places(stage)) if stage.role in ("source", "sink") else []
        if stage.role == "sink":
            for place in places:
                _check(stage, place, taken.get(place.path, ()), say)
        for place in places:
            taken.setdefault(place.path, []).append((stage, place))


def _check(sink: "PlannedStage", own: _Place, taken: Iterable[tuple["PlannedStage", _Place]], say: Say) -> None:
    other = next((stage for stage, place in taken if _clash(own, place, stage.role)), None)
    if other is not None:
        which = f"table {own.table!r} of {own.text!r}" if own.table else repr(own.text)
        what = "reads from" if other.role == "source" else "writes to"
        say(sink.name, ("with", own.key), f"{which} is what {other.title} {what}; give {sink.title} a place of its own")


def _places(stage: "PlannedStage") -> Iterator[_Place]:
    table = (getattr(stage.spec, "table", None) or "") if hasattr(stage.spec, "table") else None
    for name in file_keys(type(stage.spec)):
        value: Any = getattr(stage.spec, name)
        for text in [value] if isinstance(value, str) else value or ():
            if text and text != "-" and not set("*?[{}\0") & set(text):
                yield _Place(name, text, os.path.abspath(text), table)


def _clash(own: _Place, other: _Place, role: str) -> bool:
    """Tell whether a sink's place and another one of the same path exclude each other."""
    if own.table is None or other.table is None:
        return True
    # A table that is read may be written to as well: upsert puts back what it got.
    return role == "sink" and own.table.casefold() == other.table.casefold()
