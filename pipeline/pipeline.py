"""What users hold: a pipeline, composed of stages, that can be checked and run."""

import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Never, cast

from msgspec import Struct

from pipeline.chain import Chain
from pipeline.clock import Clock
from pipeline.errors import ConfigError, StateError
from pipeline.flow.supervisor import Options, Supervisor, failure_of
from pipeline.flow.witness import Witness
from pipeline.keywords import refuse_arguments
from pipeline.plan.document import Mark
from pipeline.plan.keys import CheckpointConfig, DeadLetterConfig, Delivery, PipelineConfig
from pipeline.plan.load import Loaded, load
from pipeline.plan.naming import default_names
from pipeline.plan.registry import Registry
from pipeline.plan.topology import NOWHERE, PlannedStage, Topology, Veil, build_topology
from pipeline.plan.watching import AlertsConfig, MetricsConfig
from pipeline.settle.cut import Letter
from pipeline.settle.letters import Wanted
from pipeline.settle.view import open_view
from pipeline.stage import OnFailure, Source, Stage
from pipeline.watch.events import Events, Subscriber
from pipeline.watch.report import Report

if TYPE_CHECKING:
    from pipeline.flow.entries import Replay
    from pipeline.flow.replaying import Replaying
    from pipeline.service.service import Service

__all__ = ("Pipeline",)


class _Placed(Struct, frozen=True):
    """A stage and the places of those it reads from."""

    spec: Stage
    inputs: tuple[int, ...]
    name: str | None = None
    kind: str = ""
    mark: Mark = NOWHERE
    hidden: frozenset[str] = frozenset()


class Pipeline:
    """A recipe for records on their way from sources to sinks.

    Composed with ``|``, which returns a new pipeline: of stages, of any iterable or async iterable as the first
    source, of a list of branches (a fan-out), of aiostream operators. The keys are those of a config; durations are
    seconds and sizes bytes, or texts with units. It can be run any number of times, one run at a time where it has a
    state file.
    """

    def __init__(
        self,
        name: str,
        *given: Never,
        delivery: Delivery | None = None,
        on_failure: OnFailure = "stop",
        dead_letter: Mapping[str, Any] | DeadLetterConfig | None = None,
        on_dead_letter: Callable[..., Any] | None = None,
        checkpoint: Mapping[str, Any] | CheckpointConfig | Literal["none"] | None = None,
        drain: float | str = 10.0,
        max_record: int | str = 2**20,
        memory: int | str = 256 * 2**20,
        metadata: Mapping[str, str | int | float | bool] | None = None,
        alerts: Mapping[str, Any] | AlertsConfig | None = None,
        metrics: Mapping[str, Any] | MetricsConfig | None = None,
        **unknown: Never,
    ) -> None:
        _check_name(name)
        refuse_arguments(f"Pipeline({name!r})", given, unknown, PipelineConfig.__struct_fields__[1:])
        if isinstance(checkpoint, Mapping):
            try:
                checkpoint = CheckpointConfig(**checkpoint)
            except ConfigError as error:
                raise ConfigError(f"checkpoint: {error}") from None
        if isinstance(dead_letter, Mapping):
            try:
                dead_letter = DeadLetterConfig(**dead_letter)
            except TypeError as error:
                raise ConfigError(f"dead_letter: {error}") from None
        self._config = PipelineConfig(
            name=name,
            delivery=delivery,
            on_failure=on_failure,
            dead_letter=dead_letter,
            on_dead_letter=on_dead_letter,
            checkpoint=checkpoint,
            drain=drain,
            max_record=max_record,
            memory=memory,
            metadata=dict(metadata or {}),
            alerts=cast("AlertsConfig | None", alerts),  # a mapping becomes what it declares
            metrics=cast("MetricsConfig | None", metrics),
        )
        self._veil = Veil()
        self._placed: tuple[_Placed, ...] = ()
        self._ends: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._config.name

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        overrides: Sequence[str] = (),
        allow_code: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> "Pipeline":
        """Return the pipeline of a config file.

        ``overrides`` are texts like ``stages.archive.with.table=late``; ``allow_code`` are prefixes of modules that
        functions may come from, besides those in the file's directory.

        :raises ConfigError: with everything that is wrong with it, by line and column.
        """
        more: dict[str, Any] = {} if environ is None else {"environ": environ}
        return cls.from_loaded(load(path, overrides=overrides, allow_code=allow_code, **more))

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> "Pipeline":
        """Return the pipeline of a config that was loaded."""
        stages = list(loaded.topology.stages.values())
        places = {stage.name: index for index, stage in enumerate(stages)}
        pipeline = cls(loaded.config.name)
        pipeline._config = loaded.config
        pipeline._veil = loaded.topology.veil
        pipeline._placed = tuple(
            _Placed(
                stage.spec,
                tuple(places[name] for name in stage.inputs),
                stage.name,
                stage.kind,
                stage.mark,
                stage.hidden,
            )
            for stage in stages
        )
        return pipeline

    @staticmethod
    def merge(*pipelines: "Pipeline") -> "Pipeline":
        """Return a pipeline whose next stage reads from the ends of all these; name and keys are the first one's."""
        if not pipelines:
            raise ConfigError("Pipeline.merge() needs at least one pipeline")
        _check_pipelines(pipelines)
        merged = pipelines[0]._copy()
        for other in pipelines[1:]:
            offset = len(merged._placed)
            merged._placed += tuple(
                _Placed(each.spec, tuple(place + offset for place in each.inputs), each.name, each.kind, each.mark)
                for each in other._placed
            )
            merged._ends += tuple(place + offset for place in other._ends)
        return merged

    def __or__(self, other: Any) -> "Pipeline":
        pipeline = self._copy()
        for link in other.links if isinstance(other, Chain) else (other,):
            pipeline._append(link)
        return pipeline

    def topology(self) -> Topology:
        """Return the checked plan.

        :raises ConfigError: with everything that is wrong with it.
        """
        called = [
            (each.spec.role, each.kind or kind_of(each.spec), each.name or each.spec.name) for each in self._placed
        ]
        names = default_names(called)
        stages = [
            PlannedStage(
                name,
                each.spec.role,
                called[index][1],
                each.spec,
                inputs=tuple(names[place] for place in each.inputs),
                mark=each.mark,
                hidden=each.hidden,
            )
            for index, (name, each) in enumerate(zip(names, self._placed, strict=True))
        ]
        topology = build_topology(self.name, self._config, stages)
        topology.veil = self._veil
        return topology

    def supervisor(
        self,
        *,
        fresh: bool = False,
        accept_changes: bool = False,
        repeat: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        clock: Clock | None = None,
        subscribers: Iterable[Subscriber] = (),
        witness: Witness | None = None,
    ) -> Supervisor:
        """Return what makes one run, for whoever wants to watch and drain it; the arguments are those of `run`.

        ``witness`` is told what becomes of each record.
        """
        options = Options(fresh, accept_changes, repeat, dry_run, limit)
        events = Events(tuple(subscribers))
        return Supervisor(self.topology(), options, clock=clock, events=events, witness=witness)

    async def run(
        self,
        *,
        fresh: bool = False,
        accept_changes: bool = False,
        repeat: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> Report:
        """Run to the end of the sources and return the report. Goes on where the state file says the last run ended.

        ``fresh`` begins a new lineage; ``accept_changes`` goes on although sources or sinks changed; ``repeat``
        accepts that records which are in a sink already are written again; ``dry_run`` opens everything, reads and
        writes nothing; ``limit`` is how many records each source reads at most. ``subscribers`` are called with each
        log event. Works inside any running event loop; cancelling it stops at once, and the next run goes on from the
        last checkpoint.

        :raises ConfigError: when the composition is wrong.
        :raises PipelineError: when the run ends badly; its ``report`` and ``exit_code`` say how.
        """
        supervisor = self.supervisor(
            fresh=fresh,
            accept_changes=accept_changes,
            repeat=repeat,
            dry_run=dry_run,
            limit=limit,
            subscribers=subscribers,
        )
        report = await supervisor.run()
        failure = failure_of(report)
        if failure is not None:
            raise failure
        return report

    async def replay(
        self,
        *,
        stage: str | None = None,
        error: str | None = None,
        since: float | None = None,
        until: float | None = None,
        ids: Sequence[int] | None = None,
        enter_at: str | None = None,
        corrected: Mapping[int, Any] | None = None,
        force: bool = False,
        subscribers: Iterable[Subscriber] = (),
    ) -> Report:
        """Replay dead letters and return the report, whose account is of them alone.

        Chosen are those of a ``stage``, with an ``error`` of this type or with this in its text, from ``since`` on and
        before ``until`` (seconds since 1970), with these ``ids``; all when nothing is given. Each goes in at the stage
        where it failed, or all at ``enter_at``, and is taken out of the state file when it is settled. ``corrected``
        has records for those saved, by id. One that fails again is one letter again, with its loop counter raised; at
        10 it is left where it is, unless with ``force``. Which were left and why is in the report's ``notes``.

        Works inside any running event loop, not while a run holds the state file; cancelling it stops at once, and
        the next replay goes on.

        :raises LockedError: when a run, or another replay, holds the state file.
        :raises PipelineError: when it ends badly; its ``report`` and ``exit_code`` say how.
        """
        wanted = Wanted(stage=stage, error=error, since=since, until=until, ids=ids)
        from pipeline.flow.entries import Replay

        replay = Replay(wanted, enter_at, corrected, force=force)
        report = await self.replaying(replay, subscribers=subscribers).run()
        failure = failure_of(report)
        if failure is not None:
            raise failure
        return report

    def replaying(
        self, replay: "Replay", *, clock: Clock | None = None, subscribers: Iterable[Subscriber] = ()
    ) -> "Replaying":
        """Return what makes one replay, for whoever wants to watch and drain it."""
        from pipeline.flow.replaying import Replaying

        return Replaying(self.topology(), replay, clock=clock, events=Events(tuple(subscribers)))

    async def dead_letters(
        self,
        *,
        stage: str | None = None,
        error: str | None = None,
        since: float | None = None,
        until: float | None = None,
        ids: Sequence[int] | None = None,
        limit: int = 100,
        after: int = 0,
    ) -> list[Letter]:
        """Return dead letters, the oldest first, at most ``limit`` with ids above ``after``; `replay` says the rest.

        Works while a run holds the state file.

        :raises StateError: when there is no state file, or it can't be read.
        """
        path = self.topology().checkpoint_path
        if path is None:
            raise StateError(f"pipeline '{self.name}' keeps no state, and so no dead letters")
        wanted = Wanted(stage=stage, error=error, since=since, until=until, ids=ids)
        async with open_view(path) as view:
            return await view.letters(wanted, limit, after)

    def service(
        self,
        *,
        answer: str | None = None,
        fresh: bool = False,
        accept_changes: bool = False,
        clock: Clock | None = None,
        subscribers: Iterable[Subscriber] = (),
    ) -> "Service":
        """Return the pipeline as a service of this event loop: ``async with pipeline.service() as service``.

        Records are submitted to its inlet, and whoever submits one gets its answer. ``answer`` names the sink whose
        records are the answers, where there are several; the other arguments are those of `run`.

        :raises ConfigError: when the composition is wrong, has no inlet, or collects what nobody would take away.
        """
        from pipeline.service.service import Service

        return Service(
            self,
            answer=answer,
            fresh=fresh,
            accept_changes=accept_changes,
            clock=clock,
            subscribers=subscribers,
        )

    def __repr__(self) -> str:
        stages = " | ".join(each.name or kind_of(each.spec) for each in self._placed)
        return f"<Pipeline {self.name}: {stages}>"

    def _copy(self) -> "Pipeline":
        copy = Pipeline(self.name)
        copy._config, copy._placed, copy._ends = self._config, self._placed, self._ends
        copy._veil = self._veil
        return copy

    def _append(self, link: Any) -> None:
        if isinstance(link, list | tuple) and self._placed and not isinstance(link, Stage):
            self._fan_out(link)  # pyright: ignore[reportUnknownArgumentType]
            return
        spec = self._stage_of(link)
        if isinstance(spec, Source):
            if self._placed:
                raise ConfigError("a source can only come first; Pipeline.merge(p, q) reads from several")
            inputs: tuple[int, ...] = ()
        else:
            inputs = self._ends
            if not inputs:
                what = "a source must come first" if not self._placed else "there is nothing to read from behind a sink"
                raise ConfigError(f"{spec.role} {kind_of(spec)}: {what}")
        self._placed += (_Placed(spec, inputs),)
        self._ends = () if spec.role == "sink" else (len(self._placed) - 1,)

    def _fan_out(self, branches: Sequence[Any]) -> None:
        before = self._ends
        ends: list[int] = []
        for branch in branches:
            self._ends = before
            for link in branch.links if isinstance(branch, Chain) else (branch,):
                self._append(link)
            ends.extend(self._ends)
        self._ends = tuple(ends)

    def _stage_of(self, link: Any) -> Stage:
        name = type(link).__name__
        if isinstance(link, Stage):
            return link
        if isinstance(link, type) and issubclass(link, Stage):
            raise ConfigError(f"{link.__name__} is a class; write {link.__name__}(...)")
        adapted = _adapted(link)
        if adapted is not None:
            return adapted
        if (
            isinstance(link, Iterable | AsyncIterable)
            and not isinstance(link, str | bytes | Mapping)
            and not self._placed
        ):
            iterable: Any = Registry().stage("source", "iterable")
            made: Stage = iterable(link)
            return made
        raise ConfigError(
            f"{name} is no stage; a pipeline is made of stages, an iterable as its first source, lists "
            "of branches, and aiostream operators (a function goes into processors.Call)"
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"Pipeline({name!r}): the name comes first; expected text, got {type(name).__name__}")


def _check_pipelines(found: Iterable[object]) -> None:
    for each in found:
        if not isinstance(each, Pipeline):
            raise ConfigError(f"Pipeline.merge() takes pipelines; got {type(each).__name__} {each!r:.40}")


def kind_of(spec: Stage) -> str:
    """Return the kind of a stage: its name in YAML."""
    cls = type(spec)
    if cls.__module__.startswith("stages."):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()
    return f"{cls.__module__}:{cls.__qualname__}"


def _adapted(link: Any) -> Stage | None:
    """Ask the installed adapters for a stage that does what an object of another library does."""
    from importlib.metadata import entry_points  # slow, and only who joins such objects needs it

    for point in entry_points(group="pipeline.adapters"):
        adapt: Callable[[Any], Stage | None] = point.load()
        stage = adapt(link)
        if stage is not None:
            return stage
    return None
