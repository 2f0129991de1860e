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

__all__ = ("DRAWS", "Bench", "Wrong", "kill_at_random", "terminate_at_random")

DRAWS = 20
"""How often a moment is drawn again that turns out to be after the end."""

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

    def finish(self, folder: Path, row: Row, label: str, problem: str = "", allowed: int = 0) -> None:
        """Run to the end, compare, and take the run into the row; so many records may be repeated.

        :raises Wrong: when it failed, to keep its folder.
        """
        ended = run(folder, self.scenario.arguments())
        problem = problem or trouble(ended)
        before = len(row.failures)
        found = None if ended.code else self.scenario.audit(folder, self.images)
        if found is not None:
            found.allowed = allowed
        row.check(label, found, problem)
        if len(row.failures) > before:
            raise Wrong


class Wrong(Exception):
    """Ends a run that failed, so that its folder is kept."""


def kill_at_random(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Kill each run once, and half of them a second time while they resume; then let them end and compare.

    A kill that comes too late is drawn again, so that each run is one that was killed. ``first`` is the number of the
    first run, for those who do some at a time.
    """
    started = time.monotonic()
    for number in range(first, first + runs):
        _until_it_lands(bench, row, f"kill-{seed}-{number}", f"{seed}/{bench.scenario.name}/{number}", signal.SIGKILL)
    row.seconds += time.monotonic() - started


def terminate_at_random(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Ask each run to stop: it must within five seconds, say so by its exit code, and go on to the same end."""
    started = time.monotonic()
    for number in range(first, first + runs):
        label, moments = f"term-{seed}-{number}", f"{seed}/{bench.scenario.name}/{number}/term"
        _until_it_lands(bench, row, label, moments, signal.SIGTERM)
    row.seconds += time.monotonic() - started


def _until_it_lands(bench: Bench, row: Row, label: str, seed: str, number: signal.Signals) -> None:
    for draw in range(DRAWS):
        chance = random.Random(f"{seed}/{draw}" if draw else seed)
        moments = [chance.uniform(0, bench.seconds)]
        if number == signal.SIGKILL and chance.random() < 0.5:
            moments.append(chance.uniform(0, bench.seconds))
        if _broken_run(bench, row, f"{label}-{draw}" if draw else label, moments, number):
            return
        row.count("too late, drawn again")
    row.check(label, problem=f"no signal came in time, {DRAWS} times")


def _broken_run(bench: Bench, row: Row, label: str, moments: list[float], number: signal.Signals) -> bool:
    """Return whether the first signal found the run under way; otherwise nothing is counted."""
    try:
        with bench.broken(label) as folder:
            problem, allowed, done = "", 0, list[str]()
            for moment in moments:
                child = Child(folder, bench.scenario.arguments())
                ended, stopping = stop(child, moment, number, 2 * _STOPS_WITHIN)
                problem = problem or wrong_end(ended, stopping, number, _STOPS_WITHIN)
                if stopping is None or ended.code == 0:
                    if not done and not problem:
                        return False
                    break
                done.append(f"{moment:.3f}")
                row.count("landed")
                row.most("ms to stop, most", 0 if number == signal.SIGKILL else round(stopping * 1000))
                if bench.scenario.at_risk is not None and number == signal.SIGKILL:
                    allowed += bench.scenario.at_risk(folder)
            bench.finish(folder, row, f"{label} at {', '.join(done)} s", problem, allowed)
    except Wrong:
        pass
    return True
