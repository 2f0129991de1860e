"""Peers take turns, each in a process of its own, so that what else the machine does meets them all alike."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.contest import Answer, Measured, Peer, Results, Workload

__all__ = ("Outcome", "take_turns")

_ROOT = Path(__file__).parents[2]
_PATIENCE = 300.0
_FEW = 2


@dataclass(slots=True)
class Outcome:
    """What came of a workload; ``skipped`` and ``wrong`` say why, by peer."""

    workload: Workload
    records: int
    results: Results = field(default_factory=dict[str, list[Measured]])
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    wrong: dict[str, str] = field(default_factory=dict[str, str])


def take_turns(workload: Workload, records: int, rounds: int, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Run all peers of a workload that are there, and compare what they gave."""
    outcome = Outcome(workload, records)
    workload.prepare(folder, workload.fewest)
    workload.prepare(folder, records)
    peers = [peer for peer in workload.peers if not _skip(peer, outcome)]
    answers: dict[int, Answer] = {}
    for turn in range(rounds):
        for peer in peers:
            if peer.name in outcome.wrong or (turn >= _FEW and not peer.every):
                continue
            say(f"{workload.name}, round {turn + 1} of {rounds}: {peer.name}")
            measured = _one(workload, peer, records, folder, outcome)
            if measured is not None:
                _judge(peer, measured, answers, outcome)
    return outcome


def _skip(peer: Peer, outcome: Outcome) -> bool:
    absent = [module for module in peer.needs if find_spec(module) is None]
    reason = f"{', '.join(absent)} not installed" if absent else peer.missing()
    if reason is not None:
        outcome.skipped[peer.name] = reason
    return reason is not None


def _one(workload: Workload, peer: Peer, records: int, folder: Path, outcome: Outcome) -> Measured | None:
    command = [sys.executable, "-m", "tests.benchmarks.child", workload.name, peer.name, str(records), str(folder)]
    try:
        ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        outcome.wrong[peer.name] = f"took more than {_PATIENCE:.0f} s"
        return None
    if ended.returncode:
        outcome.wrong[peer.name] = (ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"])[-1]
        return None
    found = json.loads(ended.stdout)
    count, checksum = found.pop("answer")
    return Measured(**found, answer=(count, checksum))


def _judge(peer: Peer, measured: Measured, answers: dict[int, Answer], outcome: Outcome) -> None:
    """Keep a result, unless it is another than that of the peers before it."""
    expected = answers.setdefault(peer.times, measured.answer)
    if measured.answer != expected:
        outcome.wrong[peer.name] = f"gave {measured.answer}, not {expected}"
        outcome.results.pop(peer.name, None)
        return
    outcome.results.setdefault(peer.name, []).append(measured)
