"""Kills at random moments, and stops by SIGTERM: whatever the moment, the end is that of an unbroken run."""

import random
import shutil
import signal
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.verify.breaking import stop, trouble, wrong_end
from pipeline.verify.child import Child, run
from tests.faults.row import Row
from tests.faults.scenario import Scenario

__all__ = ("Bench", "kill_at_random", "terminate_at_random")

_STOPS_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Bench:
    """A scenario with its input and what an unbroken run makes of it, ready to be broken."""

    scenario: Scenario
    folder: Path
    images: Mapping[str, object]
    seconds: float

    @classmethod
    def set_up(cls, scenario: Scenario, folder: Path) -> "Bench":
        """Write the input and make the unbroken run.

        :raises RuntimeError: when already that goes wrong.
        """
        scenario.make_inputs(folder / "inputs")
        unbroken = folder / "unbroken"
        scenario.set_up(unbroken, folder / "inputs")
        ended = run(unbroken, scenario.arguments())
        if ended.code:
            raise RuntimeError(f"{scenario.name}: the unbroken run ends with {ended.code}:\n{ended.said}")
        found = scenario.audit(unbroken, {})
        if not found.clean:
            raise RuntimeError(f"{scenario.name}: the unbroken run is wrong: {found}")
        return cls(scenario, folder, scenario.images(unbroken), ended.seconds)

    @contextmanager
    def broken(self, label: str) -> Generator[Path, None, None]:
        """Give a folder for one run; it stays where something goes wrong in it."""
        folder = self.folder / label
        self.scenario.set_up(folder, self.folder / "inputs")
        yield folder
        shutil.rmtree(folder)

    def finish(self, folder: Path, row: Row, label: str, problem: str = "") -> None:
        """Run to the end, compare, and take the run into the row.

        :raises Wrong: when it failed, to keep its folder.
        """
        ended = run(folder, self.scenario.arguments())
        problem = problem or trouble(ended)
        before = len(row.failures)
        row.check(label, None if ended.code else self.scenario.audit(folder, self.images), problem)
        if len(row.failures) > before:
            raise Wrong


class Wrong(Exception):
    """Ends a run that failed, so that its folder is kept."""


def kill_at_random(bench: Bench, row: Row, runs: int, seed: int) -> None:
    """Kill each run once, and half of them a second time while they resume; then let them end and compare."""
    started = time.monotonic()
    for number in range(runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}")
        label = f"kill-{seed}-{number}"
        moments = [chance.uniform(0, bench.seconds)]
        if chance.random() < 0.5:
            moments.append(chance.uniform(0, bench.seconds))
        _broken_run(bench, row, label, moments, signal.SIGKILL)
    row.seconds += time.monotonic() - started


def terminate_at_random(bench: Bench, row: Row, runs: int, seed: int) -> None:
    """Ask each run to stop: it must within five seconds, say so by its exit code, and go on to the same end."""
    started = time.monotonic()
    for number in range(runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/term")
        _broken_run(bench, row, f"term-{seed}-{number}", [chance.uniform(0, bench.seconds)], signal.SIGTERM)
    row.seconds += time.monotonic() - started


def _broken_run(bench: Bench, row: Row, label: str, moments: list[float], number: signal.Signals) -> None:
    try:
        with bench.broken(label) as folder:
            problem = ""
            for moment in moments:
                child = Child(folder, bench.scenario.arguments())
                ended, stopping = stop(child, moment, number, 2 * _STOPS_WITHIN)
                row.count("stopped" if stopping is not None else "too late")
                if stopping is not None:
                    row.count("ms to stop, most", 0)
                    row.notes["ms to stop, most"] = max(row.notes["ms to stop, most"], round(stopping * 1000))
                problem = problem or wrong_end(ended, stopping, number, _STOPS_WITHIN)
            bench.finish(folder, row, f"{label} at {', '.join(f'{moment:.3f}' for moment in moments)} s", problem)
    except Wrong:
        pass
