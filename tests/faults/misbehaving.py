"""User code that raises, hangs or ends the program (P9), and a stop while it does (P2): mended, all is there."""

import random
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.verify.child import Child, Ended, run
from tests.faults import odd
from tests.faults.kills import Bench, Wrong
from tests.faults.records import jsonl_records, made, write_jsonl
from tests.faults.row import Row
from tests.faults.scenario import Output, Scenario

__all__ = ("BEHAVIOURS", "STUCK", "misbehave", "stop_stuck", "with_function")

_DRAIN = 1.0
_ENDS_WITHIN = 10.0
_SOON = 1.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A function of `tests.faults.odd`, with more keys of its stage, and with which codes a run may end over it."""

    function: str
    batch: bool = False
    more: str = ""
    codes: tuple[int, ...] = (1,)
    says: str = "odd"


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour("raises", says="no such airport"),
    Behaviour("raises", more="retry: {attempts: 3, backoff: 1ms}", says="no such airport"),
    Behaviour("raises", more="concurrency: 3", says="odd"),
    Behaviour("raises_base"),
    Behaviour("exits"),
    Behaviour("interrupts", codes=(1, 130)),
    Behaviour("stops_iteration"),
    Behaviour("recurses"),
    Behaviour("wants_memory"),
    Behaviour("cancels_itself"),
    Behaviour("raises_later", says="no such airport"),
    Behaviour("leaks", says="no such airport"),
    Behaviour("leaks_thread", says="no such airport"),
    Behaviour("too_few", batch=True),
    Behaviour("too_many", batch=True),
    Behaviour("no_list", batch=True),
    Behaviour("nothing", batch=True),
    Behaviour("hangs", batch=True, more="timeout: 200ms"),
    Behaviour("away", batch=True, says="connection refused"),
    Behaviour("away", batch=True, more="retry: {attempts: 3, backoff: 1ms}", says="connection refused"),
    Behaviour("sleeps", batch=True, more="timeout: 200ms", codes=(1, 7)),
    Behaviour("dies", codes=(9,), says=""),
)
"""Each of these ends a run."""

STUCK: tuple[Behaviour, ...] = (
    Behaviour("hangs", batch=True, codes=(7,)),
    Behaviour("hangs", batch=True, more="concurrency: 3", codes=(7,)),
    Behaviour("hangs_on", batch=True, codes=(7,)),
    Behaviour("sleeps", batch=True, more="EXECUTOR", codes=(7,)),
    Behaviour("blocks", batch=True, codes=(7, 143)),
    Behaviour("away", batch=True, more="retry: {attempts: 1000, backoff: 1s..2s}", codes=(143,)),
    Behaviour("away", batch=True, more="circuit_breaker: {failures: 2, reset: 1m}", codes=(143,)),
    Behaviour("away", batch=True, more="retry: {attempts: 1000, backoff: 1ms}", codes=(143,)),
)
"""With each of these a run goes on for ever, or as good as: it is asked to stop."""

_CONFIG = """\
name: odd
delivery: exactly_once
drain: 1s
checkpoint: {path: state.db, interval: 50ms}
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: fixed
    with: {size: 100}
  - processor: call
    name: odd
    with: {function: "odd:%s", batch: %s%s}
%s  - sink: jsonl
    with: {path: out.jsonl}
"""


def with_function(behaviour: Behaviour, count: int = 1_500) -> Scenario:
    """Return a run through such a function."""
    threaded = behaviour.more == "EXECUTOR"
    more = f"    {behaviour.more}\n" if behaviour.more and not threaded else ""
    in_thread = ", executor: thread" if threaded or behaviour.function == "sleeps" else ""
    config = _CONFIG % (behaviour.function, str(behaviour.batch).lower(), in_thread, more)
    output = Output(lambda folder: jsonl_records(folder / "out.jsonl"))
    return Scenario("odd", _inputs, {"out": output}, config, count=count)


def misbehave(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Let a function misbehave: the run ends soon with its code and names the stage; mended, it goes on."""
    started = time.monotonic()
    for number in range(first, first + runs):
        behaviour = BEHAVIOURS[number % len(BEHAVIOURS)]
        label = f"{number}-{behaviour.function}"
        with suppress(Wrong), _of(bench, behaviour).broken(label) as folder:
            (folder / "broken").touch()
            ended = run(folder, bench.scenario.arguments())
            _judge(bench, row, folder, f"{label} {behaviour.more}", _wrong(behaviour, ended))
    row.seconds += time.monotonic() - started


def stop_stuck(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Ask a run to stop that waits for a function: it ends within its deadline and a second; mended, it goes on."""
    started = time.monotonic()
    for number in range(first, first + runs):
        behaviour, chance = STUCK[number % len(STUCK)], random.Random(f"{seed}/stuck/{number}")
        label = f"stuck-{number}-{behaviour.function}"
        with suppress(Wrong), _of(bench, behaviour).broken(label) as folder:
            (folder / "broken").touch()
            child = Child(folder, bench.scenario.arguments())
            while '"started"' not in child.said() and child.wait(0.02) is None:
                pass
            child.wait(chance.uniform(0.3, 1.0))
            asked = time.monotonic()
            child.send(signal.SIGTERM)
            ended = child.wait(_ENDS_WITHIN) or child.kill()
            took = time.monotonic() - asked
            row.most("ms to stop, most", round(took * 1000))
            # Nothing ends a function that blocks the loop: the signal waits for one call, the deadline for another.
            allowed = _DRAIN + _SOON + 4 * (behaviour.function == "blocks")
            problem = _wrong(replace(behaviour, says=""), ended)
            if took > allowed:
                problem = "; ".join(filter(None, (problem, f"took {took:.2f} s to stop")))
            _judge(bench, row, folder, f"{label} {behaviour.more}", problem)
    row.seconds += time.monotonic() - started


def _of(bench: Bench, behaviour: Behaviour) -> Bench:
    return replace(bench, scenario=with_function(behaviour, bench.scenario.count))


def _judge(bench: Bench, row: Row, folder: Path, label: str, problem: str) -> None:
    (folder / "broken").unlink()
    bench.finish(folder, row, label, problem)


def _wrong(behaviour: Behaviour, ended: Ended) -> str:
    checks: Mapping[str, bool] = {
        f"exit {ended.code}, not {behaviour.codes}: {ended.said.strip()[-300:]}": ended.code in behaviour.codes,
        f"a traceback: {ended.said[-500:]}": not ended.traced,
        f"does not say {behaviour.says!r}: {ended.said.strip()[-300:]}": behaviour.says in ended.said,
        f"took {ended.seconds:.1f} s": ended.seconds < _ENDS_WITHIN + 5,
    }
    return "; ".join(text for text, good in checks.items() if not good)


def _inputs(folder: Path, count: int) -> None:
    write_jsonl(folder / "in.jsonl", map(made, range(count)))
    shutil.copy(odd.__file__, folder / "odd.py")
