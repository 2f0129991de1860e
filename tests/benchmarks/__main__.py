"""Our pipeline, the bare Python loop and other libraries do the same work in turns: ``python -m tests.benchmarks``.

Each runs in a process of its own. Figures are those of each one's best round: other work on the machine only adds. The
ratios are to the first line of a table, by the clock and by processor time. All must give the same records.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.contest import Workload
from tests.benchmarks.table import as_data, bars, lines
from tests.benchmarks.turns import Outcome, take_turns
from tests.benchmarks.workloads import WORKLOADS

__all__ = ("main",)


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for and print it; return 1 when a peer gave other records than the rest."""
    asked = _parser().parse_args(arguments)
    began = time.monotonic()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {_load()}", flush=True)
    outcomes: list[Outcome] = []
    with TemporaryDirectory() as folder:
        for workload in asked.only:
            records = asked.records or workload.records
            outcome = take_turns(workload, max(records, workload.fewest), asked.rounds, Path(folder), _say)
            outcomes.append(outcome)
            _say("")
            print("\n".join(["", *lines(outcome)]), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s, {_load()}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([as_data(outcome) for outcome in outcomes], indent=2) + "\n")
    if asked.plot is not None:
        asked.plot.write_text(bars(outcomes))
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(WORKLOADS)
    parser.add_argument("--only", type=_chosen, default=list(WORKLOADS.values()), help=f"some of {names}: W1,W3")
    parser.add_argument("--rounds", type=_count, default=3, help="turns of each peer (slow ones: 2 at most)")
    parser.add_argument("--records", type=_count, help="records of each workload, instead of its own number")
    parser.add_argument("--json", type=_place, metavar="FILE", help="write all runs here")
    parser.add_argument("--plot", type=_place, metavar="FILE.svg", help="draw records a second here")
    return parser


def _chosen(text: str) -> list[Workload]:
    named = {name.upper(): workload for name, workload in WORKLOADS.items()}
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name.upper() not in named]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no workload {unknown[0]!r}, only {', '.join(WORKLOADS)}")
    return [named[name.upper()] for name in names]


def _count(text: str) -> int:
    if not text.replace("_", "").isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, not {text!r}")
    return int(text)


def _place(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder {path.parent} is not there")
    return path


def _load() -> str:
    return "load " + " ".join(f"{load:.1f}" for load in os.getloadavg())


def _say(text: str) -> None:
    """Show what is under way, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
