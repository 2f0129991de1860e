"""What goes wrong within a child: it is killed at a step, a stage fails or is slow; and the books that it keeps."""

import asyncio
import inspect
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from pipeline.batch import Batch
from pipeline.errors import StorageError, Unavailable
from pipeline.plan.keys import CheckpointConfig, PipelineConfig
from pipeline.plan.load import Loaded
from pipeline.plan.registry import Registry
from pipeline.plan.topology import PlannedStage, Topology, assemble
from pipeline.stage import Batcher, Each, EachAsync, Reader, Retry, Sink, Stage, Whole, Writer
from pipeline.testing.wrapping import wrapped
from pipeline.verify.books import Books

__all__ = ("Faults", "Script", "Seen")

_SEEN = "seen.json"
_STEPS = {
    "write": "a write of",
    "prepare": "a cut of",
    "sync": "a sync of",
    "committed": "the commit of a cut of",
    "seal": "a seal of",
    "prune": "a prune of",
}
_KEPT = ("name", "delivery", "on_failure", "drain", "max_record", "memory", "metadata")
_WAITS = (0.01, 0.05)
"""Seconds between attempts: the user's own waits would take longer than everything else."""
_HELD = 0.5
_BATCHER = "verify-batches"


class Script(msgspec.Struct, kw_only=True):
    """What a child is to run, and what is to go wrong in it. Seconds; ``places`` are keys of stages with new values."""

    config: str
    settings: list[str]
    allow_code: list[str]
    places: dict[str, dict[str, Any]]
    batch: int
    """Records of a batch at most, so that a sample has many."""
    interval: float = 0.01
    """Between checkpoints."""
    pause: float = 0.0
    """Of each write, on average."""
    seed: str = ""
    step: str = ""
    """Where the process is killed, the ``at``-th time it comes there, from 1."""
    at: int = 0
    holds: str = ""
    """The sink whose ``at``-th write is held up until a checkpoint is saved that counts all before it; then the end."""
    fails: str = ""
    """The stage that fails, the ``at``-th time it is called."""


class Seen(msgspec.Struct, kw_only=True):
    """What a child that came to its end has seen: how often each step came, and what each sink was handed."""

    seconds: float
    steps: dict[str, int]
    calls: dict[str, int]
    handed: dict[str, int]
    distinct: dict[str, int]


class Faults:
    """Makes a plan go wrong as a script says."""

    def __init__(self, script: Script, folder: Path) -> None:
        self._script = script
        self._folder = folder
        self._chance = random.Random(script.seed)
        self._saved = 0
        self._steps: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._handed: dict[str, Counter[bytes]] = {}
        self._books: Books | None = None
        self._began = time.monotonic()

    def rig(self, loaded: Loaded) -> Loaded:
        """Return the plan with all faults in it."""
        topology = loaded.topology
        config = self._config(topology)
        stages = [
            msgspec.structs.replace(stage, spec=self._spec(stage), outputs=()) for stage in topology.stages.values()
        ]
        self._topology = topology
        return msgspec.structs.replace(
            loaded, config=config, topology=assemble(topology.name, config, _gathered(stages, self._script.batch))
        )

    def end(self) -> None:
        """Write down what was seen; for a child that came to its end."""
        seen = Seen(
            seconds=time.monotonic() - self._began,
            steps=dict(self._steps),
            calls=dict(self._calls),
            handed={name: sum(counts.values()) for name, counts in self._handed.items()},
            distinct={name: len(counts) for name, counts in self._handed.items()},
        )
        (self._folder / _SEEN).write_bytes(msgspec.json.encode(seen))

    @staticmethod
    def seen(folder: Path) -> Seen:
        """Return what a child has written down."""
        return msgspec.json.decode((folder / _SEEN).read_bytes(), type=Seen)

    # --- the plan ---

    def _config(self, topology: Topology) -> PipelineConfig:
        """Return the keys of the pipeline, but for those that reach out of the run."""
        config = topology.config
        path = str(self._folder / "state.db") if topology.checkpoint_path is not None else None
        saved = config.saved()
        checkpoint = CheckpointConfig(path=path, interval=self._script.interval, max_unsettled=saved.max_unsettled)
        given: dict[str, Any] = {name: getattr(config, name) for name in _KEPT}
        return PipelineConfig(**given, checkpoint=checkpoint if path is not None else "none")

    def _spec(self, stage: PlannedStage) -> Stage:
        spec: Any = _changed(stage.spec, self._script.places.get(stage.name, {}))
        if isinstance(spec, Batcher):
            return _smaller(spec, self._script.batch)
        retry: Retry | None = getattr(spec, "retry", None)
        if retry is not None:
            spec = _changed(spec, {"retry": _changed(retry, {"backoff": _WAITS})})
        if getattr(spec, "rate_limit", None) is not None:
            spec = _changed(spec, {"rate_limit": None})
        fails = self._failing(stage.name, retry)

        async def around(opening: Awaitable[Any], context: Any) -> Any:
            return self._around(stage, await opening, context, fails)

        made: Stage = wrapped(spec, around)
        return made

    def _around(self, stage: PlannedStage, opened: Any, context: Any, fails: Callable[[], None]) -> Any:
        if isinstance(opened, Reader):
            self._watch_reader(opened)
        elif isinstance(opened, Writer):
            if not context.dry:
                self._watch_writer(stage.name, opened, fails)
        elif isinstance(opened, Each | EachAsync | Whole):
            opened.function = _failing(opened.function, fails, inspect.iscoroutinefunction(opened.function))
        return opened

    def _failing(self, name: str, retry: Retry | None) -> Callable[[], None]:
        """Return what counts the calls of a stage, and raises at the one that is to fail.

        What is tried again finds the other side back; what is not must end the run, and is no record's own fault.
        """

        def call() -> None:
            self._calls[name] += 1
            if name == self._script.fails and self._calls[name] == self._script.at:
                if retry is not None and retry.attempts > 1:
                    raise Unavailable("made to fail by pipeline verify")
                raise StorageError(f"stage '{name}': made to fail by pipeline verify")

        return call

    # --- what is watched ---

    def _watch_reader(self, reader: Reader) -> None:
        forget = reader.forget

        async def watched(cursor: Any) -> None:
            self._saved += 1
            self._step("after a checkpoint")
            await forget(cursor)

        reader.forget = watched  # type: ignore[method-assign]

    def _watch_writer(self, name: str, writer: Writer, fails: Callable[[], None]) -> None:
        if self._books is None:
            self._books = Books(self._folder, self._topology)
            self._began = time.monotonic()
        books = self._books
        write = writer.write
        handed = self._handed.setdefault(name, Counter())

        async def watched(batch: Batch) -> None:
            fails()
            books.hand(name, batch)
            await self._pause()
            if name == self._script.holds and self._calls[name] == self._script.at:
                await self._hold()
            await write(batch)
            handed.update(map(_text, batch.records))
            await self._pause()

        writer.write = watched  # type: ignore[method-assign]
        for step, words in _STEPS.items():
            if hasattr(writer, step):
                setattr(writer, step, self._stepped(f"{words} '{name}'", getattr(writer, step)))

    def _stepped(self, what: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def stepped(*arguments: Any) -> Any:
            self._step(f"before {what}")
            result = await call(*arguments)
            self._step(f"after {what}")
            return result

        return stepped

    def _step(self, name: str) -> None:
        self._steps[name] += 1
        if name == self._script.step and self._steps[name] == self._script.at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def _hold(self) -> None:
        """Wait for what the sink has said to be written to count, and end: what it still has in hand is lost.

        The second checkpoint from here on was frozen after this write began. A sink with a position has none meanwhile.
        """
        until, saved = time.monotonic() + _HELD, self._saved
        while self._saved < saved + 2 and time.monotonic() < until:  # noqa: ASYNC110 - it ends by a kill
            await asyncio.sleep(self._script.interval)
        os.kill(os.getpid(), signal.SIGKILL)

    async def _pause(self) -> None:
        if self._script.pause:
            await asyncio.sleep(self._chance.expovariate(1 / self._script.pause))


def _failing(function: Callable[..., Any], fails: Callable[[], None], asynchronous: bool) -> Callable[..., Any]:
    if asynchronous:

        async def call_async(*arguments: Any, **named: Any) -> Any:
            fails()
            return await function(*arguments, **named)

        return call_async

    def call(*arguments: Any, **named: Any) -> Any:
        fails()
        return function(*arguments, **named)

    return call


def _text(record: Any) -> bytes:
    return msgspec.json.encode(record, enc_hook=repr)


def _changed(spec: Any, values: Mapping[str, Any]) -> Any:
    return msgspec.structs.replace(spec, **values) if values else spec


def _smaller(spec: Batcher, most: int) -> Stage:
    """Return a batcher whose batches are so small that a sample has many, and that waits for none of them."""
    values: dict[str, Any] = {}
    for name in ("size", "max_size"):
        if hasattr(spec, name):
            given: Any = getattr(spec, name)
            values[name] = most if given is None else min(given, most)
    if hasattr(spec, "min_size"):
        given = getattr(spec, "min_size")  # noqa: B009 - a key that only some batchers have
        values["min_size"] = given if given is None else min(given, most)
    if isinstance(linger := getattr(spec, "linger", None), int | float):
        values["linger"] = min(linger, _WAITS[1])
    return cast("Stage", _changed(spec, values))


def _gathered(stages: list[PlannedStage], most: int) -> list[PlannedStage]:
    """Return the stages with a batcher behind the sources whose records reach a sink ungathered: as they are read."""
    by_name = {stage.name: stage for stage in stages}
    for sink in [stage for stage in stages if isinstance(stage.spec, Sink)]:
        above = list(_above(sink, by_name))
        if any(stage.role == "batcher" for stage in above):
            continue
        for source in [stage for stage in above if stage.role == "source"]:
            name = f"{_BATCHER}-{source.name}"
            if name not in by_name:
                for stage in by_name.values():
                    stage.inputs = tuple(name if each == source.name else each for each in stage.inputs)
                made: Any = Registry().stage("batcher", "fixed")
                spec: Stage = made(size=most, linger=_WAITS[0])
                by_name[name] = PlannedStage(name, "batcher", "fixed", spec, (source.name,))
    return list(by_name.values())


def _above(stage: PlannedStage, by_name: Mapping[str, PlannedStage]) -> Iterator[PlannedStage]:
    for name in stage.inputs:
        yield by_name[name]
        yield from _above(by_name[name], by_name)
