"""What a worker runs: the plan of one partition, with outputs and a state file of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from pipeline.plan.keys import CheckpointConfig
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.stage import Parting, Sink

__all__ = ("fingerprint_of", "is_hidden", "partition_topology", "shared_sinks", "state_folder", "state_of")


def fingerprint_of(topology: Topology) -> Any:
    """Return the fingerprint of a plan as it comes out of a pipe, so that two processes can compare theirs."""
    return msgspec.json.decode(msgspec.json.encode(topology.fingerprint(), enc_hook=str))


def partition_topology(
    topology: Topology,
    number: int,
    lineage: str,
    state: str,
    memory: int,
    letters: int,
    through_writer: Callable[[PlannedStage], Sink],
) -> Topology:
    """Return the plan of a partition; ``through_writer`` gives what stands for a sink that only the writer opens."""
    stages = dict(topology.stages)
    for planned in topology.sinks:
        assert isinstance(planned.spec, Sink)
        if planned.spec.parting(topology.config.merge) is Parting.ONE_WRITER:
            made = through_writer(planned)
        else:
            made = planned.spec.for_partition(number, lineage, is_hidden(topology, planned.spec))
        stages[planned.name] = structs.replace(planned, spec=made)
    saved = topology.config.saved()
    checkpoint = CheckpointConfig(path=state, interval=saved.interval, max_unsettled=saved.max_unsettled)
    dead_letter = structs.replace(topology.config.letters(), max=letters)
    config = structs.replace(topology.config, checkpoint=checkpoint, memory=memory, workers=1, dead_letter=dead_letter)
    return Topology(topology.name, config, stages)


def is_hidden(topology: Topology, sink: Sink) -> bool:
    """Tell whether the outputs of partitions are merged and taken away."""
    return sink.parting(topology.config.merge) is Parting.MERGED


def shared_sinks(topology: Topology) -> dict[str, Sink]:
    """Return the sinks that only the writer opens."""
    specs: dict[str, Any] = {planned.name: planned.spec for planned in topology.sinks}
    return {name: spec for name, spec in specs.items() if spec.parting(topology.config.merge) is Parting.ONE_WRITER}


def state_folder(topology: Topology) -> Path:
    """Return the folder beside the state file where the partitions' state files are, by lineage."""
    assert topology.checkpoint_path is not None
    return Path(f"{topology.checkpoint_path}.partitions")


def state_of(topology: Topology, lineage: str, number: int) -> Path:
    """Return the state file of a partition."""
    return state_folder(topology) / lineage / f"{number:06d}.db"
