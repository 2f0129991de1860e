"""What a run's report keeps of its time series, so that it can be explained long after."""

import inspect
from typing import Any

from msgspec import Struct, field

from pipeline.units import parse_duration

__all__ = ("BatcherSummary", "Resize", "StageTraits", "Summary", "TURNS", "settings_of", "traits_of")

TURNS = ("slower", "faster", "infeasible", "feasible")
"""Reasons of a change that came from outside; the others are the batcher finding its size."""

_SETTINGS = ("target_latency", "latency_of", "percentile", "margin", "min_size", "max_size", "size", "linger")
_DURATIONS = ("target_latency", "linger")


class Resize(Struct, kw_only=True):
    """A change of a batcher's limit that was worth a line, ``seconds`` after the run began, behind so many batches.

    ``factor`` is how many times longer a batch takes since, 0 where nobody knows; ``late`` how many batches one after
    the other were over the target around it; ``stage`` the one that the change came from, empty if none stands out;
    ``settled`` the size of a typical batch from then to the next turn.
    """

    batcher: str
    seconds: float
    before: int
    limit: int
    reason: str
    batches: int
    factor: float = 0.0
    late: int = 0
    stage: str = ""
    settled: int = 0


class BatcherSummary(Struct, kw_only=True):
    """What a batcher did in a run. Sizes are records, times are seconds; ``over`` counts batches over the target.

    ``start`` and ``last`` are limits; ``warm`` says that the first of them came from the run before. The ``climb`` is
    the way up at the beginning. ``turns`` and ``last_resizes`` are the newest ten.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    start: int = 0
    warm: bool = False
    last: int = 0
    first_size: int = 0
    first_seconds: float = 0.0
    climb_limit: int = 0
    climb_batches: int = 0
    climb_seconds: float = 0.0
    batches: int = 0
    records: int = 0
    over: int = 0
    typical: int = 0
    largest: int = 0
    median_latency: float = 0.0
    p95_latency: float = 0.0
    longest: float = 0.0
    fixed: float = 0.0
    per_record: float = 0.0
    headroom: float = 0.0
    infeasible: bool = False
    triggers: dict[str, int] = field(default_factory=dict[str, int])
    resizes: dict[str, int] = field(default_factory=dict[str, int])
    turns: list[Resize] = field(default_factory=list[Resize])
    last_resizes: list[Resize] = field(default_factory=list[Resize])

    @property
    def target(self) -> float | None:
        """The target latency, None where there is none."""
        return self.settings.get("target_latency")

    @property
    def over_share(self) -> float:
        """The share of batches over the target."""
        return self.over / self.batches if self.batches else 0.0

    def predict(self, size: float) -> float:
        """Return the seconds that a batch of this size takes, by what was learned."""
        return self.fixed + self.per_record * size


class StageTraits(Struct, kw_only=True):
    """How a stage was set up, as far as that decides what would make it faster."""

    concurrency: int = 1
    executor: str = ""
    asynchronous: bool = False
    one_at_a_time: bool = False
    """Whether it refuses to do several batches at a time."""


class Summary(Struct):
    """All of it; ``started`` is in seconds since 1970."""

    started: float = 0.0
    batchers: list[BatcherSummary] = field(default_factory=list[BatcherSummary])
    stages: dict[str, StageTraits] = field(default_factory=dict[str, StageTraits])


def settings_of(spec: object) -> dict[str, Any]:
    """Return the keys of a batcher that its sizes follow from; durations in seconds."""
    found = {name: getattr(spec, name) for name in _SETTINGS if hasattr(spec, name)}
    for name in _DURATIONS:
        if isinstance(found.get(name), str):
            found[name] = parse_duration(found[name])
    return found


def traits_of(spec: object) -> StageTraits:
    """Return how a stage is set up."""
    function: Any = getattr(spec, "function", None)
    if isinstance(function, type):
        function = vars(function).get("__call__")
    return StageTraits(
        concurrency=getattr(spec, "concurrency", 1),
        executor=getattr(spec, "executor", ""),
        asynchronous=inspect.iscoroutinefunction(function),
        one_at_a_time=_one_at_a_time(spec),
    )


def _one_at_a_time(spec: object) -> bool:
    resumes: Any = getattr(spec, "resumes", None)
    return resumes is not None and resumes().name in ("POSITION", "TRANSACTION")
