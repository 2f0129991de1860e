"""Who reads from whom: inputs by name or by place, cycles, and stages that nothing reads or that read nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from pipeline.nearest import did_you_mean
from pipeline.plan.code import OTHERWISE
from pipeline.plan.document import Path

__all__ = ("Say", "Wire", "check_wiring", "in_order", "inputs_by_place", "outputs_of")

Say = Callable[[str | None, Path, str], None]
"""Takes a problem: the name of the stage (None for the pipeline), the key in it, the text."""


class Wire(Struct, frozen=True):
    """A stage as far as wiring goes. ``role`` is empty where it isn't known; ``reads`` is what ``from:`` names."""

    name: str
    role: str
    inputs: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    when: object = None


def inputs_by_place(stages: Sequence[Wire], say: Say) -> list[tuple[str, ...]]:
    """Return the inputs of each stage: what it names, else the stage above it."""
    by_name = {stage.name: stage for stage in stages}
    inputs: list[tuple[str, ...]] = []
    for index, stage in enumerate(stages):
        if stage.reads is not None:
            inputs.append(_named_inputs(stage, by_name, say))
        else:
            inputs.append(_input_above(stages, index, inputs, say))
    return inputs


def check_wiring(stages: Sequence[Wire], say: Say) -> None:
    """Say what is wrong with a pipeline whose stages know their inputs."""
    missing = [role for role in ("source", "sink") if not any(stage.role == role for stage in stages)]
    for role in missing:
        say(None, ("stages",), f"no {role}; a pipeline needs one, like '{role}: jsonl'")
    outputs = outputs_of(stages)
    if not missing:
        _check_ends(stages, outputs, say)
    if (cycle := _cycle(stages)) is not None:
        say(cycle[0], ("from",), f"a cycle: {' <- '.join([*cycle, cycle[0]])}")
    _check_otherwise(stages, outputs, say)


def outputs_of(stages: Sequence[Wire]) -> dict[str, tuple[str, ...]]:
    """Return who reads from each stage, in the order of the stages."""
    outputs: dict[str, list[str]] = {stage.name: [] for stage in stages}
    for stage in stages:
        for name in dict.fromkeys(stage.inputs):
            if name in outputs:
                outputs[name].append(stage.name)
    return {name: tuple(readers) for name, readers in outputs.items()}


def in_order(stages: Sequence[Wire]) -> list[str]:
    """Return the names in the order of the data; a cycle and what is behind it are left out."""
    order: dict[str, None] = {}
    waiting = list(stages)
    while waiting:
        rest: list[Wire] = []
        for stage in waiting:
            if all(name in order for name in stage.inputs):
                order[stage.name] = None
            else:
                rest.append(stage)
        if len(rest) == len(waiting):
            break
        waiting = rest
    return list(order)


def _check_ends(stages: Sequence[Wire], outputs: Mapping[str, tuple[str, ...]], say: Say) -> None:
    for stage in stages:
        if stage.role != "sink" and not outputs[stage.name]:
            say(stage.name, (), "nothing reads from it; every way must end in a sink")
        if stage.role != "source" and not stage.inputs:
            say(stage.name, (), "reads from nothing")


def _input_above(stages: Sequence[Wire], index: int, inputs: Sequence[tuple[str, ...]], say: Say) -> tuple[str, ...]:
    stage = stages[index]
    if stage.role in ("source", ""):
        return ()
    if index == 0:
        if any(other.role == "source" for other in stages):
            say(stage.name, (), "stands first and reads from nothing; put the source above it, or add 'from:'")
        return ()
    above = stages[index - 1]
    if above.role == "sink":
        feeding = f", like 'from: {inputs[index - 1][0]}'" if inputs[index - 1] else ""
        say(stage.name, (), f"stands below sink '{above.name}', which gives nothing; add 'from:'{feeding}")
        return ()
    return (above.name,)


def _named_inputs(stage: Wire, by_name: Mapping[str, Wire], say: Say) -> tuple[str, ...]:
    if stage.role == "source":
        return ()
    if not stage.reads:
        say(stage.name, ("from",), "expected the name of a stage")
    inputs: list[str] = []
    for index, name in enumerate(stage.reads or ()):
        problem = _input_problem(stage, name, by_name, inputs)
        if problem:
            say(stage.name, ("from", index), problem)
        else:
            inputs.append(name)
    return tuple(inputs)


def _input_problem(stage: Wire, name: str, by_name: Mapping[str, Wire], seen: Sequence[str]) -> str | None:
    if name == stage.name:
        return "a stage can't read from itself"
    if name not in by_name:
        others = [other.name for other in by_name.values() if other.role != "sink" and other is not stage]
        return f"no stage '{name}'{did_you_mean(name, others)}"
    if by_name[name].role == "sink":
        return f"'{name}' is a sink, which gives nothing"
    return f"'{name}' is named twice" if name in seen else None


def _cycle(stages: Sequence[Wire]) -> list[str] | None:
    """Return the stages of a cycle, each reading from the next."""
    inputs = {stage.name: stage.inputs for stage in stages}
    ordered = set(in_order(stages))
    # What no order reaches is in a cycle or behind one: going against the data ends in the cycle itself.
    name = next((stage.name for stage in stages if stage.name not in ordered), None)
    path: list[str] = []
    while name is not None and name not in path:
        path.append(name)
        name = next((each for each in inputs.get(name, ()) if each not in ordered and each in inputs), None)
    return path[path.index(name) :] if name is not None else None


def _check_otherwise(stages: Sequence[Wire], outputs: Mapping[str, tuple[str, ...]], say: Say) -> None:
    by_name = {stage.name: stage for stage in stages}
    for stage in stages:
        if stage.when == OTHERWISE:
            for name in stage.inputs:
                siblings = [by_name[each] for each in outputs.get(name, ()) if each != stage.name]
                problem = next(_otherwise_problems(name, siblings), None)
                if problem:
                    say(stage.name, ("when",), problem)


def _otherwise_problems(name: str, siblings: Sequence[Wire]) -> Iterator[str]:
    if not siblings:
        yield f"'otherwise' takes what no sibling took, and nothing else reads from '{name}'"
    for sibling in siblings:
        if sibling.when is None:
            yield f"'otherwise' takes what no sibling took, and '{sibling.name}' takes everything"
        elif sibling.when == OTHERWISE:
            yield f"'{sibling.name}' takes what no sibling took as well; only one can"
