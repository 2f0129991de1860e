"""Which dead letters are replayed, where each goes in, and why others are left where they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from pipeline.errors import ConfigError
from pipeline.nearest import did_you_mean
from pipeline.plan.topology import Topology
from pipeline.settle.letters import Outline, Wanted

__all__ = ("MAX_REPLAYS", "Entries", "Replay", "entries_of", "most_at_once", "outputs_of")

MAX_REPLAYS = 10
"""A letter that came back so often is not helped by one more time: a replay that is started by a clock must end."""


class Replay(Struct, frozen=True):
    """What is to be replayed.

    ``enter_at`` is the stage where all letters go in, in the place of those where they failed. ``corrected`` has
    records to put in the place of those saved, by the letter's id; where it is given, no other letters are replayed.
    ``keys`` may say which letters those ids belong to, so that those of another state file are not mistaken for ours.
    """

    wanted: Wanted = field(default_factory=Wanted)
    enter_at: str | None = None
    corrected: Mapping[int, Any] | None = None
    keys: Mapping[int, str] = field(default_factory=dict[int, str])
    force: bool = False


class Entries(Struct, frozen=True):
    """What a replay comes to: the place where each letter goes in, by its id, and why others stay."""

    places: dict[int, str] = field(default_factory=dict[int, str])
    left: dict[int, str] = field(default_factory=dict[int, str])
    rows: list[int] = field(default_factory=list[int])
    """The rows of those that go in, ascending."""

    def counts(self) -> dict[str, int]:
        """Return how many letters go in at each place."""
        found: dict[str, int] = {}
        for place in self.places.values():
            found[place] = found.get(place, 0) + 1
        return found


def entries_of(outlines: Sequence[Outline], topology: Topology, replay: Replay) -> Entries:
    """Return where letters go in.

    :raises ConfigError: for a stage that isn't there, and for corrected records that are not of these letters.
    """
    if replay.enter_at is not None and replay.enter_at not in topology.stages:
        near = did_you_mean(replay.enter_at, topology.stages)
        raise ConfigError(f"there is no stage '{replay.enter_at}' to enter at{near}")
    entries = Entries()
    for outline in outlines:
        if replay.corrected is not None and outline.id not in replay.corrected:
            continue
        _check_key(outline, replay)
        reason = _reason(outline, topology, replay)
        if reason is None:
            entries.places[outline.id] = replay.enter_at or outline.stage
            entries.rows.append(outline.row)
        else:
            entries.left[outline.id] = reason
    entries.rows.sort()
    return entries


def outputs_of(topology: Topology, place: str) -> tuple[str, ...]:
    """Return the stages that get the letters of a place: itself, or for a source those that read from it."""
    stage = topology.stages[place]
    return stage.outputs if stage.role == "source" else (place,)


def most_at_once(topology: Topology, place: str) -> int | None:
    """Return how many records the batchers before a stage give it at most; None where none of them has a bound.

    Letters go in behind those batchers, and what a function or a service takes at once is often bounded.
    """
    bounds: list[int] = []
    above = list(topology.stages[place].inputs)
    while above:
        stage = topology.stages[above.pop()]
        if stage.role != "batcher":
            above += stage.inputs
            continue
        bound = getattr(stage.spec, "size", None) or getattr(stage.spec, "max_size", None)
        bounds += [bound] if isinstance(bound, int) else []
    return min(bounds, default=None)


def _check_key(outline: Outline, replay: Replay) -> None:
    key = replay.keys.get(outline.id, outline.key)
    if key != outline.key:
        raise ConfigError(
            f"letter {outline.id} is not the one that was exported: its key is {outline.key}, not {key}; the export is "
            "of another state file"
        )


def _reason(outline: Outline, topology: Topology, replay: Replay) -> str | None:
    """Return why a letter can't be replayed."""
    corrected = replay.corrected is not None
    if replay.enter_at is None:
        stage = topology.stages.get(outline.stage)
        if stage is None:
            return f"its stage '{outline.stage}' is not in the pipeline any more; --from names another"
        if stage.role == "source" and not corrected:
            return f"{stage.title} could not read it; export it, correct its record, and replay with --file"
        if stage.role == "source" and _is_json_text((replay.corrected or {}).get(outline.id)):
            return "its record is a text still; give the record that stands in it, without the quotes around"
    if outline.shown and not corrected:
        return "its record could be kept only as text; export it, correct its record, and replay with --file"
    if outline.replays >= MAX_REPLAYS and not replay.force:
        return f"it was replayed {outline.replays} times and failed each time; --force tries again"
    return None


def _is_json_text(record: Any) -> bool:
    """Tell whether a corrected record is the line that could not be read, where it should be what the line holds."""
    return isinstance(record, str) and record.lstrip()[:1] in ("{", "[")
