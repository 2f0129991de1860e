"""A sample run again and again, broken each time in another way, and compared with an unbroken run."""

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.errors import PipelineError
from pipeline.plan.code import live_code
from pipeline.plan.schema import keys_of
from pipeline.plan.topology import Topology
from pipeline.verify import sample
from pipeline.verify.books import begun, forget_books, may_repeat
from pipeline.verify.breaking import last_words, stop, trouble, wrong_end
from pipeline.verify.child import Child, Ended
from pipeline.verify.faults import Faults, Script, Seen
from pipeline.verify.outputs import read_letters, read_output
from pipeline.verify.verdict import LETTERS, Output, outputs_of, unbroken_problem

__all__ = ("Asked", "Verification")

_BATCHES = 40
"""Batches that a sample is to have, so that there is something to break between them."""
_PAUSE = 0.004
"""Seconds that each write is held up before and after, on average: or all would be over before a kill can come."""
_PATIENCE = 60.0
_LOOK = 0.002
_GRACE = 5.0
"""Seconds past the deadline of a drain in which a child that was asked to stop must have ended."""

Kind = Literal["kill", "hold", "twice", "stop", "step", "fail"]
_KINDS: tuple[Kind, ...] = ("kill", "hold", "twice", "stop", "step", "fail")
_KILLED = frozenset((0, -signal.SIGKILL))


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: a config as it was named, how much of its input, how often it is broken, and the seed."""

    config: str
    settings: Sequence[str]
    allow_code: Sequence[str]
    records: int
    runs: int
    seed: int


@dataclass(slots=True)
class _Leg:
    """One child of a broken run: what goes wrong in it, in words too."""

    words: str
    script: Mapping[str, Any] = field(default_factory=dict[str, Any])
    number: signal.Signals | None = None
    moment: float = 0.0
    codes: frozenset[int] = frozenset((0,))


class Verification:
    """Breaks a pipeline on a sample of its input, below a folder of its own; nothing of the user's is written to."""

    def __init__(self, asked: Asked, topology: Topology, folder: Path) -> None:
        self._asked = asked
        self._topology = topology
        self._folder = folder
        self._sinks = [stage.name for stage in topology.sinks]
        self._inputs: dict[str, dict[str, Any]] = {}
        self._seen = Seen(seconds=0.0, steps={}, calls={}, handed={}, distinct={})
        self._child: Child | None = None
        self.outputs: list[Output] = outputs_of(topology)
        self.counts: dict[str, int] = {}
        """How often what was done."""
        self.failures: list[str] = []
        """What went wrong, a line for each run."""

    def prepare(self) -> None:
        """Copy the sample and make the unbroken run, twice: what differs between the two can't be judged.

        :raises ConfigError: when an input can't be read.
        :raises PipelineError: when already the unbroken run goes wrong.
        """
        self._inputs = sample.places(self._topology, self._asked.records, self._folder / "inputs")
        first, second = (self._unbroken(name) for name in ("unbroken", "unbroken-again"))
        for output in self.outputs:
            output.expected = first[output.name]
            if not output.unjudged and sorted(map(repr, first[output.name])) != sorted(map(repr, second[output.name])):
                output.unjudged = "two unbroken runs wrote different records, so a broken one can't be compared"
            if problem := unbroken_problem(output, self._seen):
                output.problems.append(problem)
                self.failures.append(f"{output.name}: {problem}")

    def run(self, number: int) -> bool:
        """Make one broken run and judge what it leaves; return whether all promises held. Its folder stays if not."""
        chance = random.Random(f"{self._asked.seed}/{number}")
        folder = self._folder / f"run-{number}"
        folder.mkdir()
        legs = list(self._legs(_KINDS[(number - 1) % len(_KINDS)], chance))
        problem = ""
        allowed: Counter[str] = Counter()
        said: list[str] = []
        for index, leg in enumerate(legs):
            ended, wrong = self._leg(leg, folder, f"{self._asked.seed}/{number}/{index}")
            problem = problem or wrong
            if ended.code == 0:
                said.append(f"{leg.words} (too late)")
                break
            said.append(leg.words)
            allowed += may_repeat(folder, folder / "state.db", self._topology)
            self._count(leg)
        else:
            problem = problem or trouble(self._last(folder))
        broken = self._judge(folder, allowed, problem)
        if broken:
            self.failures.append(f"run {number}, {', then '.join(said)}: {'; '.join(broken)}")
        else:
            shutil.rmtree(folder)
        return not broken

    def close(self) -> None:
        """End the child that is under way, if there is one."""
        if self._child is not None and self._child.running:
            self._child.kill()

    # --- the broken run ---

    def _legs(self, kind: Kind, chance: random.Random) -> Iterator[_Leg]:
        """Yield the children of a run that are broken; one that ends well follows."""
        if kind in ("kill", "twice"):
            for _ in range(1 + (kind == "twice")):
                moment = chance.uniform(0, self._seen.seconds)
                yield _Leg(f"killed after {moment:.3f}s", number=signal.SIGKILL, moment=moment)
        elif kind == "stop":
            moment = chance.uniform(0, self._seen.seconds)
            yield _Leg(f"stopped after {moment:.3f}s", number=signal.SIGTERM, moment=moment)
        elif kind == "hold":
            sink = chance.choice(self._sinks)
            at = chance.randint(1, max(1, self._seen.calls.get(sink, 1)))
            words = f"killed at write {at:,} of '{sink}', which was held up until all before it counted"
            yield _Leg(words, {"holds": sink, "at": at}, codes=_KILLED)
        elif kind == "step":
            step = chance.choice(sorted(self._seen.steps))
            at = chance.randint(1, self._seen.steps[step])
            yield _Leg(f"killed {step} ({at:,})", {"step": step, "at": at}, codes=_KILLED)
        else:
            stage = chance.choice(self._may_fail())
            at = chance.randint(1, max(1, self._seen.calls.get(stage, 1)))
            words = f"call {at:,} of stage '{stage}' failed"
            # Where it is not tried again the run ends and can be resumed.
            yield _Leg(words, {"fails": stage, "at": at}, codes=frozenset((0, 1, 6)))

    def _may_fail(self) -> list[str]:
        """Return the stages that may fail by themselves: sinks, and functions of the user's."""
        found = list(self._sinks)
        for stage in self._topology.stages.values():
            keys = keys_of(type(stage.spec))
            if stage.role == "processor" and live_code(keys, {key.name: getattr(stage.spec, key.name) for key in keys}):
                found.append(stage.name)
        return found

    def _leg(self, leg: _Leg, folder: Path, seed: str) -> tuple[Ended, str]:
        """Run one child that is to be broken; return its end and what is wrong with it."""
        forget_books(folder)
        child = self._start(folder, seed=seed, **leg.script)
        if leg.number is None:
            ended = self._wait(child)
            wrong = "" if ended.code in leg.codes else f"ended with {ended.code}: {last_words(ended)}"
            return ended, wrong
        drain: Any = self._topology.config.drain
        self._wait_for_books(child, folder)
        ended, stopping = stop(child, leg.moment, leg.number, drain + 2 * _GRACE)
        return ended, wrong_end(ended, stopping, leg.number, drain + _GRACE)

    def _last(self, folder: Path) -> Ended:
        return self._wait(self._start(folder, pause=0.0))

    def _judge(self, folder: Path, allowed: Mapping[str, int], problem: str) -> list[str]:
        if problem:
            return [problem]
        wrong: list[str] = []
        for name, records in self._read(folder).items():
            output = next(each for each in self.outputs if each.name == name)
            if said := output.judge(records, allowed.get(name, 0)):
                output.problems.append(said)
                wrong.append(f"{name}: {said}")
        return wrong

    def _count(self, leg: _Leg) -> None:
        what = "kill" if leg.number == signal.SIGKILL else "stop" if leg.number is not None else "kill at a step"
        if "fails" in leg.script:
            what = "failed call"
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- children ---

    def _unbroken(self, name: str) -> dict[str, list[Any]]:
        folder = self._folder / name
        folder.mkdir()
        ended = self._wait(self._start(folder, seed=name))
        if ended.code or ended.traced:
            why = f"an unbroken run of the sample ends with {ended.code}: {last_words(ended)}"
            hint = "functions run in a folder of their own, so they must name files by whole paths"
            raise PipelineError(f"{why}; {hint}; see {folder}/said.log")
        self._seen = Faults.seen(folder)
        return self._read(folder)

    def _read(self, folder: Path) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for output in self.outputs:
            if output.stage is not None:
                found[output.name] = read_output(output.stage, folder / "out" / output.name)
            elif output.name == LETTERS:
                found[output.name] = read_letters(folder / "state.db")
        return found

    def _start(self, folder: Path, *, seed: str = "", pause: float = _PAUSE, **more: Any) -> Child:
        outputs = sample.outputs(self._topology, folder / "out")
        for values in outputs.values():
            for path in values.values():
                Path(path.partition("{")[0]).parent.mkdir(parents=True, exist_ok=True)
        script = Script(
            config=self._asked.config,
            settings=list(self._asked.settings),
            allow_code=list(self._asked.allow_code),
            places=self._inputs | outputs,
            batch=max(1, self._asked.records // _BATCHES),
            pause=pause,
            seed=seed,
            **more,
        )
        path = folder / "script.json"
        path.write_bytes(msgspec.json.encode(script))
        arguments = ["-m", "pipeline.cli.verify_child", str(path), str(folder)]
        self._child = Child(folder, arguments, cwd=Path.cwd())
        return self._child

    def _wait(self, child: Child) -> Ended:
        ended = child.wait(_PATIENCE)
        if ended is None:
            ended = child.kill()
            return Ended(ended.code, ended.seconds, f"{ended.said}\nstill running after {_PATIENCE:.0f} s")
        return ended

    def _wait_for_books(self, child: Child, folder: Path) -> None:
        """Wait until the stages of a child are open: what comes before is no different from run to run."""
        until = time.monotonic() + _PATIENCE
        while not begun(folder) and time.monotonic() < until and child.wait(_LOOK) is None:
            pass
