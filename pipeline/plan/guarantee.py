"""What a sink promises about records that come again after a crash, and what that promise rests on."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pipeline.plan.code import live_code
from pipeline.plan.schema import keys_of
from pipeline.stage import Batcher, Processor, Resume, Sink, Source

if TYPE_CHECKING:
    from pipeline.plan.topology import PlannedStage, Topology

__all__ = ("Guarantee", "guarantee_of", "order_problem", "state_problem")


class Guarantee(NamedTuple):
    """A promise in words; ``exact`` if it is exactly once; ``why`` are its reasons, what stands against it first."""

    text: str
    exact: bool
    why: list[str]


def guarantee_of(topology: "Topology", sink: "PlannedStage") -> Guarantee:
    """Return what a sink of the plan promises: the weakest of what the way to it can give."""
    spec = sink.spec
    resumes = spec.resumes() if isinstance(spec, Sink) else Resume.NONE
    against = list(_against(topology, sink, resumes))
    lost = [_unreplayed(source) for source in _sources(topology, sink) if not _replays(source)]
    if topology.checkpoint_path is None:
        why = [*lost, *against, "there is no checkpoint"]
        return Guarantee("no promise after a crash: every run starts anew", False, why)
    if lost:
        return Guarantee("no repeats, but what was unsettled in a crash is gone", False, [*lost, *against])
    if topology.config.delivery == "at_least_once":
        return Guarantee(f"at least once: {_REPEATS}", False, ["'delivery: at_least_once' asks for no more", *against])
    if not against:
        return Guarantee("exactly once", True, [_WAYS[resumes], *_rests_on(topology, sink)])
    if resumes is Resume.UPSERT and len(against) == 1:
        return Guarantee("at least once, and repeats are invisible", False, against)
    return Guarantee(f"at least once: {_REPEATS}", False, against)


def state_problem(topology: "Topology", stage: "PlannedStage") -> str | None:
    """Return what keeps a stage with state from being right: it judges a record by those of smaller numbers."""
    if (problem := _order_within_sources(topology, stage)) is not None:
        return f"keeps state and needs its input in order, but {problem}"
    sources = _sources(topology, stage)
    if len(sources) > 1 and topology.config.delivery == "exactly_once":
        return f"keeps state, and under exactly_once such a stage has one source, not {len(sources)}"
    return None


def order_problem(topology: "Topology", stage: "PlannedStage") -> str | None:
    """Return what keeps records from coming to a stage in the order in which they were read."""
    if len(_sources(topology, stage)) > 1:
        return "records of several sources come to it"
    return _order_within_sources(topology, stage)


def _order_within_sources(topology: "Topology", stage: "PlannedStage") -> str | None:
    upstream = topology.upstream(stage.name)
    for other in upstream:
        if reason := _unorders(other):
            return f"{other.title} {reason}"
    if len(stage.inputs) > 1 or any(len(other.inputs) > 1 for other in upstream):
        if len(_ways(topology, stage)) > len(_sources(topology, stage)):
            return "records of one source come to it by several ways"
    return None


_REPEATS = "records since the last checkpoint may come again"
_WAYS = {
    Resume.POSITION: "the sink is cut back to the last checkpoint",
    Resume.TRANSACTION: "rows and the numbers they settle are in one transaction",
}


def _sources(topology: "Topology", stage: "PlannedStage") -> list["PlannedStage"]:
    return [other for other in topology.upstream(stage.name) if isinstance(other.spec, Source)]


def _replays(source: "PlannedStage") -> bool:
    return isinstance(source.spec, Source) and source.spec.replays()


def _unreplayed(source: "PlannedStage") -> str:
    return f"{source.title} ({source.kind}) can't be read again"


def _against(topology: "Topology", sink: "PlannedStage", resumes: Resume) -> Iterator[str]:
    """Yield what keeps a sink from exactly once."""
    if resumes is Resume.NONE:
        yield f"{sink.title} ({sink.kind}) has no position to go back to"
    if resumes is Resume.UPSERT:
        yield f"{sink.title} ({sink.kind}) writes a record that comes again under the same key"
    for stage in topology.upstream(sink.name):
        if isinstance(stage.spec, Processor):
            if not stage.spec.resumable():
                yield f"{stage.title} ({stage.kind}) does not promise the same results when records come again"
            # Batches are cut anew on resume, so an aggregate's groups differ, whichever stage makes them.
            elif getattr(stage.spec, "aggregate", False):
                yield f"{stage.title} ({stage.kind}) makes aggregates, whose groups differ when records come again"


def _rests_on(topology: "Topology", sink: "PlannedStage") -> Iterator[str]:
    """Yield the stages with user code that may filter, route or split: it must do the same each time."""
    names = [f"'{stage.name}'" for stage in [*topology.upstream(sink.name), sink] if _own_code(stage)]
    if names:
        yield f"supposes that {', '.join(names)} route and split a record the same way each time"


def _own_code(stage: "PlannedStage") -> list[str]:
    keys = keys_of(type(stage.spec))
    return live_code(keys, {key.name: getattr(stage.spec, key.name) for key in keys})


def _unorders(stage: "PlannedStage") -> str | None:
    spec = stage.spec
    if isinstance(spec, Processor) and not spec.ordered and spec.concurrency > 1:
        return "has 'ordered: false'"
    if isinstance(spec, Batcher) and (spec.by is not None or spec.order_by is not None):
        return f"gathers records with '{'by' if spec.by is not None else 'order_by'}'"
    return None


def _ways(topology: "Topology", stage: "PlannedStage") -> list[str]:
    """Return the source at the end of each way to a stage; one that has several ways comes several times."""
    if not stage.inputs:
        return [stage.name]
    ways: dict[str, list[str]] = {}
    for other in topology.upstream(stage.name):
        # Two ways are enough to know; all of them could be as many as two to the number of stages.
        ways[other.name] = _at_most_two([end for name in other.inputs for end in ways[name]] or [other.name])
    return [end for name in stage.inputs for end in ways[name]]


def _at_most_two(ends: list[str]) -> list[str]:
    return [end for index, end in enumerate(ends) if ends[:index].count(end) < 2]
