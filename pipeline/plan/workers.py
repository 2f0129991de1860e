"""What keeps a plan from being shared by workers: several sources, and whatever looks across partitions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.plan.document import Path
from pipeline.stage import Processor, Sink, Source

if TYPE_CHECKING:
    from pipeline.plan.topology import PlannedStage, Topology

__all__ = ("worker_problems",)

Problem = tuple[str | None, Path, str]


def worker_problems(topology: "Topology") -> Iterator[Problem]:
    """Yield what is against workers: the stage (None for the pipeline), the key, and why."""
    if topology.checkpoint_path is None:
        yield None, ("checkpoint",), "workers keep their partitions in the state file, and 'none' asks for none"
    if len(topology.sources) > 1:
        names = ", ".join(f"'{source.name}'" for source in topology.sources)
        yield (
            None,
            ("workers",),
            f"workers share the partitions of one source; there are {len(topology.sources)}: {names}",
        )
    if topology.config.letters().sink is not None:
        yield None, ("dead_letter", "sink"), "workers have no common sink for copies; `dlq export` writes all letters"
    for key in ("alerts", "metrics"):
        if getattr(topology.config, key) is not None:
            yield None, (key,), "looks at one process, and workers are several; leave out this or the workers"
    for stage in topology.stages.values():
        problem = _problem(topology, stage)
        if problem is not None:
            yield stage.name, (), f"can't be shared by workers: {problem}"


def _problem(topology: "Topology", stage: "PlannedStage") -> str | None:
    spec = stage.spec
    if isinstance(spec, Source):
        return spec.indivisible()
    if isinstance(spec, Processor) and spec.stateful():
        return "it looks across records, and each worker sees only those of its partitions"
    if isinstance(spec, Processor) and not spec.resumable():
        return "it has a memory of earlier records, and each worker sees only those of its partitions"
    if isinstance(spec, Sink):
        found = spec.parting(topology.config.merge)
        return found if isinstance(found, str) else None
    return None
