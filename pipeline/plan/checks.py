"""What is checked of a plan as a whole, and of declarations made in Python; and how a problem is said."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from pipeline.plan.code import check_expressions
from pipeline.plan.document import Path
from pipeline.plan.exceptions import check_exceptions
from pipeline.plan.guarantee import state_problem
from pipeline.plan.keys import PipelineConfig
from pipeline.plan.naming import check_name, repeated
from pipeline.plan.places import check_places
from pipeline.plan.policies import policy_problems
from pipeline.plan.schema import keys_of
from pipeline.plan.values import check_python
from pipeline.plan.wiring import Say, Wire, check_wiring
from pipeline.plan.workers import worker_problems
from pipeline.stage import Resume, Sink

if TYPE_CHECKING:
    from pipeline.plan.topology import PlannedStage, Topology

__all__ = ("check_declared", "check_plan", "check_promises", "label", "stage_text", "wires_of")


def check_declared(config: PipelineConfig, stages: Sequence["PlannedStage"], say: Say) -> None:
    """Say what is wrong with declarations made in Python, which nobody has checked yet."""
    report = _Saying(None, say)
    check_python(config, report)
    for key, text in config.problems() if not report.said else ():
        say(None, tuple(key.split(".")), text)
    if problem := check_name(config.name):
        say(None, ("name",), problem)
    for stage in stages:
        report = _Saying(stage.name, say)
        check_python(stage.spec, report)
        if report.said:
            continue  # what a stage says of its keys taken together supposes that each is of its type
        keys = keys_of(type(stage.spec))
        check_expressions(keys, {key.name: getattr(stage.spec, key.name) for key in keys}, report)
        check_exceptions({"retry": getattr(stage.spec, "retry", None)}, None, report)
        if problem := check_name(stage.name):
            report(("name",), problem)
        for key, text in (*stage.spec.problems(), *policy_problems(stage.spec)):
            report(tuple(key.split(".")) if key else (), text)
    for name in sorted(repeated([stage.name for stage in stages])):
        say(name, ("name",), "another stage has the same name; give each its own 'name'")


def check_plan(topology: "Topology", stages: Sequence["PlannedStage"], say: Say) -> None:
    """Say what is wrong with a plan whose stages are each right."""
    check_wiring(wires_of(stages), say)
    check_places(stages, say)
    if len(topology.stages) == len(stages) and topology.sources and topology.sinks:
        check_promises(topology, say)
        if topology.config.workers > 1:
            for name, where, problem in worker_problems(topology):
                say(name, where, problem)


def check_promises(topology: "Topology", say: Say) -> None:
    """Say where the plan can't give what its keys ask for."""
    for sink in topology.sinks:
        if isinstance(sink.spec, Sink) and sink.spec.concurrency > 1 and _has_position(sink.spec):
            say(sink.name, ("concurrency",), "takes one batch at a time; expected 1")
    if topology.config.delivery == "exactly_once":
        for name, guarantee in topology.guarantees().items():
            if not guarantee.exact:
                say(None, ("delivery",), f"exactly_once can't hold at sink '{name}': {'; '.join(guarantee.why)}")
    for stage in topology.stages.values():
        if stage.stateful() and (problem := state_problem(topology, stage)):
            say(stage.name, (), problem)
        if topology.checkpoint_path is None and topology.policy_of(stage.name) == "dead_letter":
            who = stage.name if stage.spec.on_failure else None
            say(who, ("on_failure",), "dead letters are kept in the state file, and 'checkpoint: none' asks for none")
            break


def label(path: Path) -> str:
    """Return a path within a stage as people write it, ``retry.attempts`` or ``path[2]``, without ``with``."""
    steps = path[1:] if path[:1] == ("with",) else path
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def stage_text(stage: str | None, path: Path, text: str) -> str:
    """Return a problem's text with the stage, as it is called, and the key in front."""
    named = f"key '{label(path)}': {text}" if label(path) and path != ("stages",) else text
    return f"{stage}: {named}" if stage else named


class _Saying(Struct, frozen=True):
    """Reports the problems of one stage, and keeps what it said."""

    stage: str | None
    say: Say
    said: list[str] = field(default_factory=list[str])

    def __call__(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        self.said.append(text)
        self.say(self.stage, where[:-1] if key else where, text)


def wires_of(stages: Sequence["PlannedStage"]) -> list[Wire]:
    """Return the stages as far as wiring goes."""
    return [Wire(s.name, s.role, s.inputs, None, getattr(s.spec, "when", None)) for s in stages]


def _has_position(spec: Sink) -> bool:
    return spec.resumes() in (Resume.POSITION, Resume.TRANSACTION)
