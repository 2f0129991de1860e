"""What a plan promises of each output, and whether what was found in the broken runs keeps to it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from pipeline.plan.guarantee import order_problem
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.stage import Processor, Resume, Sink
from pipeline.verify.audit import Audit
from pipeline.verify.faults import Seen
from pipeline.verify.outputs import compare

__all__ = ("LETTERS", "Output", "outputs_of", "unbroken_problem")

LETTERS = "dead letters"
"""The output that is no sink."""

_SHOWN = 160


@dataclass(slots=True)
class Output:
    """One output: what is promised of it, and what was found. ``unjudged`` is why it can't be judged, if it can't."""

    name: str
    promise: str
    exact: bool
    ordered: bool
    expected: Sequence[Hashable] = ()
    stage: PlannedStage | None = None
    unjudged: str = ""
    found: Audit = field(default_factory=Audit)
    allowed: int = 0
    problems: list[str] = field(default_factory=list[str])

    def judge(self, records: Sequence[Hashable], allowed: int) -> str:
        """Take in what one broken run left; return what is wrong with it, empty when it keeps to the promise.

        ``allowed`` are the records that may be there again where repeats are allowed at all.
        """
        if self.unjudged:
            return ""
        result = compare(self.expected, records, self.ordered)
        self.found.add(result)
        self.allowed += 0 if self.exact else allowed
        if result.lost or result.foreign or result.reordered or result.repeated > (0 if self.exact else allowed):
            text = str(result)
            return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        return ""


def outputs_of(topology: Topology) -> list[Output]:
    """Return what can be compared: each sink that outlives a run, and the dead letters where there may be some."""
    found = [_of_sink(topology, sink) for sink in topology.sinks if isinstance(sink.spec, Sink) and sink.spec.durable()]
    if any(topology.policy_of(name) == "dead_letter" for name in topology.stages):
        found.append(Output(LETTERS, "exactly once", True, False, unjudged=_unlike(topology, None)))
    return found


def unbroken_problem(output: Output, seen: Seen) -> str:
    """Return what an unbroken run itself lost or repeated, by what the sink was handed; empty when nothing.

    Whether a record has a line of its own is not known here, so both count: lines in all, and lines that are alike.
    """
    if output.stage is None or output.unjudged or _resumes(output.stage) is Resume.UPSERT:
        return ""
    handed, distinct = seen.handed.get(output.name, 0), seen.distinct.get(output.name, 0)
    there, different = len(output.expected), len(set(output.expected))
    if there > handed and there - different > handed - distinct:
        return f"an unbroken run wrote {there:,} records of {handed:,}: {there - handed:,} are repeated"
    if there < handed:
        return f"an unbroken run wrote {there:,} records of {handed:,}: {handed - there:,} are lost"
    return ""


def _of_sink(topology: Topology, sink: PlannedStage) -> Output:
    guarantee = topology.guarantees()[sink.name]
    upsert = _resumes(sink) is Resume.UPSERT
    ordered = order_problem(topology, sink) is None and not upsert and getattr(sink.spec, "concurrency", 1) == 1
    return Output(
        sink.name,
        guarantee.text.partition(":")[0],
        guarantee.exact or upsert,
        ordered,
        stage=sink,
        unjudged=_unlike(topology, sink),
    )


def _resumes(stage: PlannedStage) -> Resume:
    return stage.spec.resumes() if isinstance(stage.spec, Sink) else Resume.NONE


def _unlike(topology: Topology, sink: PlannedStage | None) -> str:
    """Return why the records of a broken run need not be those of an unbroken one."""
    for stage in topology.upstream(sink.name) if sink is not None else topology.stages.values():
        if isinstance(stage.spec, Processor) and getattr(stage.spec, "aggregate", False):
            return f"stage '{stage.name}' makes aggregates, whose groups differ when records come again"
        if isinstance(stage.spec, Processor) and not stage.spec.resumable():
            return f"stage '{stage.name}' does not promise the same results when records come again"
    return ""
