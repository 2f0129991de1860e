"""One case run: the user's plan with sources and sinks in memory, in virtual time."""

import inspect
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import msgspec

from pipeline.cases.load import Ready
from pipeline.cases.mocks import MemorySink, MockProcessor, engine_keys
from pipeline.errors import PipelineError
from pipeline.flow.supervisor import Options, Supervisor
from pipeline.plan.keys import CheckpointConfig, PipelineConfig
from pipeline.plan.topology import PlannedStage, Topology, assemble
from pipeline.settle.view import open_view
from pipeline.stage import EachAsync, Processor, Sink, Source, Stage, Whole
from pipeline.testing import ListSource, ManualClock, Stored
from pipeline.testing.wrapping import wrapped
from pipeline.units import format_duration
from pipeline.watch.events import Events
from pipeline.watch.report import Report

__all__ = ("Fell", "Outcome", "run_case")

_CHUNK = 500
"""Records that a source hands on together, as a file source does."""
_NEVER = 10 * 86_400.0
"""Seconds between cuts: none is taken but the last, so that nothing depends on how fast the disk is."""
_WITHIN = 7200.0
_LETTERS = 100_000


@dataclass(slots=True)
class Fell:
    """A record that failed; ``letter`` is its dead letter's record, where it has one."""

    stage: str
    error: str
    outcome: str
    key: str = ""
    letter: Any = msgspec.UNSET


@dataclass(slots=True)
class Outcome:
    """What came of a case: the records of each sink, and what failed. ``trouble`` is why the run itself went wrong."""

    outputs: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    failures: list[Fell] = field(default_factory=list[Fell])
    trouble: str = ""


async def run_case(ready: Ready, within: float = 60.0) -> Outcome:
    """Run a case and return what came of it.

    ``within`` are real seconds, for functions that wait for something real; the pipeline's own time is virtual.
    """
    with _environment(ready.case.environment), tempfile.TemporaryDirectory(prefix="pipeline-test-") as folder:
        return await _Trial(ready, Path(folder)).run(within)


class _Trial:
    """One run of one case."""

    def __init__(self, ready: Ready, folder: Path) -> None:
        self._ready = ready
        self._under_way = _UnderWay()
        self._stored = {sink.name: Stored() for sink in ready.loaded.topology.sinks}
        self._outcome = Outcome({name: stored.records for name, stored in self._stored.items()})
        self._stops: list[Fell] = []
        self._topology = self._plan(folder)

    async def run(self, within: float) -> Outcome:
        clock = ManualClock()
        events = Events((self._event,))
        supervisor = Supervisor(self._topology, Options(), clock=clock, events=events)

        def elsewhere() -> bool:
            # Opening and closing, the state file works in a thread, and no timer of ours is under way.
            return self._under_way.count > 0 or supervisor.status().state in ("starting", "finishing", "finished")

        try:
            with anyio.fail_after(within):
                report = await clock.finish(supervisor.run(), _WITHIN, elsewhere=elsewhere)
        except TimeoutError:
            self._outcome.trouble = f"has not ended within {format_duration(within)}"
        except AssertionError:
            self._outcome.trouble = f"has not ended within {format_duration(_WITHIN)} of the pipeline's own time"
        except PipelineError as error:
            self._outcome.trouble = str(error)
        else:
            self._judge(report)
            await self._read_letters()
        return self._outcome

    # --- the plan ---

    def _plan(self, folder: Path) -> Topology:
        topology = self._ready.loaded.topology
        stages = [
            msgspec.structs.replace(stage, spec=self._spec(stage), outputs=()) for stage in topology.stages.values()
        ]
        return assemble(topology.name, self._config(topology, folder), stages)

    def _config(self, topology: Topology, folder: Path) -> PipelineConfig:
        """Return the keys of the pipeline, but for those that reach out of it."""
        config = topology.config
        given: dict[str, Any] = {name: getattr(config, name) for name in _WITHIN_THE_RUN}
        given["checkpoint"] = "none"
        if any(topology.policy_of(name) == "dead_letter" for name in topology.stages):
            given["checkpoint"] = CheckpointConfig(
                path=str(folder / "state.db"), interval=_NEVER, max_unsettled=config.saved().max_unsettled
            )
        return PipelineConfig(**given)

    def _spec(self, stage: PlannedStage) -> Stage:
        spec, mocks = stage.spec, self._ready.case.mocks
        rules = self._ready.case.rules(stage.name) if stage.name in mocks else []
        if isinstance(spec, Source):
            return self._source(spec, self._ready.inputs[stage.name])
        if isinstance(spec, Sink):
            return MemorySink(**engine_keys(spec), stored=self._stored[stage.name], rules=rules)
        if isinstance(spec, Processor):
            if not rules:
                return wrapped(spec, self._under_way.watch)
            batch, aggregate = bool(getattr(spec, "batch", False)), bool(getattr(spec, "aggregate", False))
            return MockProcessor(**engine_keys(spec), rules=rules, batch=batch, aggregate=aggregate)
        return spec

    def _source(self, spec: Source, records: Sequence[Any]) -> Source:
        declared = spec.record_type()
        typed: list[Any] = [
            msgspec.convert(record, declared) if isinstance(record, dict) and declared is not Any else record
            for record in records
        ]
        keys = {name: value for name, value in engine_keys(spec).items() if name != "restart"}
        return ListSource(**keys, records=typed, chunk=_CHUNK)

    # --- what came of it ---

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        if name == "failed":
            error = f"{fields['error_type']}: {fields['error']}".removesuffix(": ")
            fell = Fell(fields["stage"], error, fields["outcome"], fields["key"])
            (self._stops if fell.outcome == "stop" else self._outcome.failures).append(fell)

    def _judge(self, report: Report) -> None:
        stopped = re.match(r"stage '(.+?)' \(.*?\): (?:[^:]+\[\d+\]: )?(.*)", report.error, re.DOTALL)
        if report.outcome == "stopped" and stopped is not None:
            # Of several that would have stopped the run one did, and its error is told without its type.
            told = Fell(stopped[1], stopped[2], "stop")
            same = (each for each in self._stops if each.stage == told.stage and each.error.endswith(told.error))
            self._outcome.failures.append(next(same, told))
        elif report.outcome != "done":
            self._outcome.trouble = report.error or f"the run was {report.outcome}"

    async def _read_letters(self) -> None:
        path = self._topology.checkpoint_path
        buried = {fell.key: fell for fell in self._outcome.failures if fell.outcome == "dead_letter"}
        if path is None or not buried:
            return
        async with open_view(Path(path)) as view:
            for letter in await view.letters(limit=_LETTERS):
                if letter.key in buried:
                    buried[letter.key].letter = letter.record


_WITHIN_THE_RUN = ("name", "delivery", "on_failure", "drain", "max_record", "memory", "metadata")
"""Keys of a pipeline that hold in a case too; the others start processes, call out, or write somewhere."""


class _UnderWay:
    """Counts users' functions that wait for something that is real; virtual time stands still meanwhile."""

    def __init__(self) -> None:
        self.count = 0

    async def watch(self, opening: Awaitable[Any], context: Any) -> Any:
        """Return an open processor whose asynchronous calls are counted."""
        work = await opening
        if isinstance(work, EachAsync | Whole):
            work.function = self._counted(work.function)
        return work

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            try:
                result = function(*arguments, **named)
                return await result if inspect.isawaitable(result) else result
            finally:
                self.count -= 1

        return call


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None, None, None]:
    """Set variables for the time of a case: users' functions may read them themselves."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
