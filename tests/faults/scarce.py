"""Too few descriptors (EMFILE) and too little memory (P12): an error in a line, nothing lost, and all in the end."""

import random
import time
from contextlib import suppress

from pipeline.verify.child import run
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = ("make_scarce",)

_NEEDED = 150 * 2**20
"""Bytes of addresses that Python and its threads need to begin."""


def make_scarce(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Run with few descriptors, or little memory, by turns; then with enough."""
    started = time.monotonic()
    for number in range(first, first + runs):
        chance = random.Random(f"{seed}/{bench.scenario.name}/{number}/scarce")
        limit = f"--nofile={chance.randint(4, 24)}" if number % 2 == 0 else f"--as={_NEEDED + chance.randrange(2**28)}"
        with suppress(Wrong), bench.broken(f"scarce-{seed}-{number}") as folder:
            ended = run(folder, bench.scenario.arguments(), before=["prlimit", limit])
            row.count(f"exit {ended.code}")
            began = '"started"' in ended.said
            problem = ""
            # SQLite can't open a file without a descriptor, and does not say that this is why.
            unopened = ended.code == 5 and "unable to open database file" in ended.said
            if (ended.code not in (0, 1, 2, 6) and not unopened) or (ended.traced and began):
                problem = f"{limit}: ended with {ended.code}: {ended.said.strip()[-600:]}"
            bench.finish(folder, row, limit, problem)
    row.seconds += time.monotonic() - started
