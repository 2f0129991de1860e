"""What a pipeline must be to run as a service, and what callers may ask of it."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

from pipeline.errors import ConfigError
from pipeline.nearest import did_you_mean
from pipeline.plan.topology import Topology
from pipeline.stage import Source
from pipeline.units import parse_duration

__all__ = ("check_many", "check_priority", "check_service", "seconds_of", "sink_of")


def check_service(topology: Topology) -> tuple[str, ...]:
    """Return the names of the inlets of a pipeline, none where it has none.

    :raises ConfigError: when it collects: a service has no end at which somebody would take that away.
    """
    for name, stage in topology.stages.items():
        if stage.role == "sink" and stage.kind == "collect":
            raise ConfigError(
                f"stage '{name}' (sink collect): a service never ends to hand out what it collects; "
                "answers hold what reached the sink, so use sinks.Discard()"
            )
        if topology.policy_of(name) == "collect":
            raise ConfigError(
                f"stage '{name}' ({stage.role} {stage.kind}): on_failure: collect lists errors at the end, and a "
                "service has none; leave it out, each error goes to its caller"
            )
    return tuple(stage.name for stage in topology.sources if isinstance(stage.spec, Source) and stage.spec.fed)


def sink_of(topology: Topology, answer: str | None) -> str | None:
    """Return the sink whose records are answers; None: all of them.

    :raises ConfigError: when there is no such sink.
    """
    names = [sink.name for sink in topology.sinks]
    if answer is None or answer in names:
        return answer
    near = did_you_mean(answer, names) or f"; it has {', '.join(names)}"
    raise ConfigError(f"pipeline '{topology.name}' has no sink '{answer}' to answer from{near}")


def seconds_of(value: float | str, what: str) -> float:
    """Return a duration in seconds; texts have a unit, like ``250ms``.

    :raises ConfigError: when it can't be read.
    """
    try:
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}={value!r}: {error}") from None
    if not isfinite(seconds):
        raise ConfigError(f"{what}={value!r}: expected a finite number of seconds; leave it out for none")
    return seconds


def check_priority(priority: object) -> None:
    """Refuse a priority that can't be compared with the others.

    :raises ConfigError: when it is no whole number.
    """
    if type(priority) is not int:
        raise ConfigError(f"priority={priority!r}: expected a whole number; the highest goes first")


def check_many(records: Any) -> None:
    """Refuse one record where several are expected: its parts are hardly meant.

    :raises ConfigError: when it is a mapping or a text.
    """
    given: object = records
    if isinstance(given, Mapping | str | bytes):
        kind = type(cast(object, given)).__name__
        raise ConfigError(f"submit_many takes a list of records, not one {kind}; submit takes one")
