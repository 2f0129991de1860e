"""The keys of a pipeline: what stands beside ``stages:`` at the top of a config."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from pipeline.plan.watching import AlertsConfig, MetricsConfig
from pipeline.stage import Declared, Duration, FilePath, OnFailure, Sink, Size, key

__all__ = ("CheckpointConfig", "DeadLetterConfig", "Delivery", "PipelineConfig")

Delivery = Literal["exactly_once", "at_least_once"]


class CheckpointConfig(Declared, kw_only=True):
    """Where and how often the state of a run is saved."""

    path: Annotated[
        FilePath | None, Meta(min_length=1), key("The state file; .pipeline/NAME.db if left out.", file=True)
    ] = None
    interval: Annotated[Duration, Meta(gt=0), key("Time between checkpoints.")] = 1.0
    max_unsettled: Annotated[
        int, Meta(ge=1), key("Records read and not settled at most; then reading stops and every batcher flushes.")
    ] = 100_000


class DeadLetterConfig(Declared, kw_only=True):
    """How many dead letters are kept, and where they are copied to. They are always in the state file."""

    sink: Annotated[
        Sink | None, key("Sink that gets a copy of each letter when it is saved; in a config a kind, with `with:`.")
    ] = None
    max: Annotated[
        int,
        Meta(ge=1),
        key(
            "Letters kept at most; with one more the run stops, exit 1, and can be resumed. Workers divide what room "
            "is left: all together keep no more, and one partition that has used up its part stops the run earlier."
        ),
    ] = 100_000


class PipelineConfig(Declared, kw_only=True):
    """What holds for a whole pipeline."""

    name: Annotated[str, Meta(min_length=1), key("Names the state file, and the pipeline in metrics and logs.")]
    delivery: Annotated[
        Delivery | None,
        key("exactly_once is refused where it can't hold; left out, every sink gives the strongest it has."),
    ] = None
    on_failure: Annotated[OnFailure, key("What happens to a record that fails, in stages that don't say.")] = "stop"
    dead_letter: Annotated[
        DeadLetterConfig | None, key("Bound of the dead letters in the state file, and a sink for copies of them.")
    ] = None
    on_dead_letter: Annotated[
        str | Callable[..., Any] | None,
        key("Function called with each dead letter that was saved, and its attempts.", function=True),
    ] = None
    drain: Annotated[Duration, key("The deadline of a stop; what is left then is read again.")] = 10.0
    max_record: Annotated[Size, Meta(ge=1), key("Bytes of the largest record; a larger one is a bad record.")] = 2**20
    memory: Annotated[Size, Meta(ge=1), key("Bytes held at most; then reading stops and every batcher flushes.")] = (
        256 * 2**20
    )
    workers: Annotated[
        int, Meta(ge=1, le=1024), key("Processes that share the work, each on partitions of the source.")
    ] = 1
    partition: Annotated[
        Size, Meta(ge=1), key("Bytes of a partition, about: larger files are divided, smaller ones put together.")
    ] = 64 * 2**20
    merge: Annotated[
        bool, key("With workers: merge the files of the partitions in order; false leaves one a partition.")
    ] = True
    checkpoint: Annotated[
        CheckpointConfig | Literal["none"] | None,
        key("Where and how often state is saved; none: every run starts anew."),
    ] = None

    metadata: Annotated[
        dict[str, str | int | float | bool],
        key("Words about a run: each batch, dead letter, log of the start and `pipeline_info` metric carries them."),
    ] = field(default_factory=dict[str, str | int | float | bool])
    alerts: Annotated[AlertsConfig | None, key("When a run tells that something is wrong, and whom.")] = None
    metrics: Annotated[MetricsConfig | None, key("Where metrics are pushed to while it runs.")] = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the keys taken together, each with the key it is about, as in ``alerts.webhook``."""
        for name, declared in (("alerts", self.alerts), ("metrics", self.metrics)):
            for inner, text in declared.problems() if declared is not None else ():
                yield f"{name}.{inner}".removesuffix("."), text
        bound = self.saved().max_unsettled
        if self.alerts is not None and self.alerts.backlog is not None and self.alerts.backlog >= bound:
            yield "alerts.backlog", f"never more than {bound:,} records are unsettled (checkpoint.max_unsettled)"

    def letters(self) -> DeadLetterConfig:
        """Return what holds for dead letters."""
        return self.dead_letter or DeadLetterConfig()

    def saved(self) -> CheckpointConfig:
        """Return what holds for checkpoints where there are any."""
        return self.checkpoint if isinstance(self.checkpoint, CheckpointConfig) else CheckpointConfig()
