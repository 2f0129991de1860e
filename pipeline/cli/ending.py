"""What a run says at its end: the account, how fast it was, what held it up, and what to type next."""

from collections.abc import Iterator
from typing import Any

from pipeline.cli.config import ConfigFile
from pipeline.cli.say import number, span
from pipeline.errors import Exit
from pipeline.plan.topology import Topology
from pipeline.stage import Source
from pipeline.watch.report import Report

__all__ = ("ending_fields", "ending_lines", "replay_lines")


def ending_lines(
    report: Report, topology: Topology, config: ConfigFile, code: int, *, saved: bool, limit: int | None = None
) -> Iterator[str]:
    """Yield the lines that end a run, for people.

    ``code`` is what the command exits with, ``saved`` whether there is a checkpoint to go on from.
    """
    rate = f", {number(report.throughput)} records/s" if report.account.settled else ""
    yield f"{report.pipeline}: {_OUTCOMES.get(report.outcome, report.outcome)} after {span(report.seconds)}{rate}"
    if report.outcome == "done":
        yield from _amount(report, topology, config, limit)
    yield from (f"failed: {each['position']}: stage '{each['stage']}': {each['error']}" for each in report.errors[:10])
    if len(report.errors) > 10:
        yield f"… and {number(report.account.collected - 10)} more failed (on_failure: collect)"
    yield str(report.account)
    if report.resumed:
        yield f"all runs: {report.total}"
    if report.bottleneck:
        yield f"bottleneck: {report.bottleneck}"
    yield from _promises(report, topology)
    if report.dead_letters:
        count = number(report.dead_letters)
        yield f"dead letters: {count} in {topology.checkpoint_path}; {config.command('dlq', 'list')} shows them"
    if report.error:
        yield f"error: {report.error}"
    yield from _next(report, topology, config, code, saved)


def replay_lines(report: Report, left: int, topology: Topology, config: ConfigFile) -> Iterator[str]:
    """Yield the lines that end a replay, for people; ``left`` letters could not be replayed."""
    account = report.account
    yield f"{report.pipeline}: replay {_OUTCOMES.get(report.outcome, report.outcome)} after {span(report.seconds)}"
    if not account.read and not left and report.outcome == "done":
        yield "no dead letters like that"
    yield str(account)
    if account.dead_lettered:
        yield f"failed again: {number(account.dead_lettered)}"
    if left:
        yield f"left where they are: {number(left)}, for the reasons above"
    if report.dead_letters:
        count = number(report.dead_letters)
        yield f"dead letters: {count} in {topology.checkpoint_path}; {config.command('dlq', 'list')} shows them"
    else:
        yield "no dead letters are left"
    if report.error:
        yield f"error: {report.error}"
    if report.outcome != "done":
        yield f"letters that did not end are dead letters still; go on with: {config.command('dlq', 'replay')}"


def ending_fields(report: Report, code: int) -> dict[str, Any]:
    """Return the fields of the log event that ends a run."""
    return {
        "pipeline": report.pipeline,
        "outcome": report.outcome,
        "exit_code": code,
        **report.account.as_dict(),
        "seconds": round(report.seconds, 3),
        "rate": round(report.throughput, 1),
        "dead_letters": report.dead_letters,
        "bottleneck": report.bottleneck,
        "lineage": report.lineage,
        "run": report.run,
        "error": report.error,
    }


_OUTCOMES = {
    "done": "done",
    "drained": "drained",
    "failed": "failed",
    "interrupted": "stopped early",
    "late": "stopped at the deadline",
    "stopped": "stopped at a record that failed",
}


def _amount(report: Report, topology: Topology, config: ConfigFile, limit: int | None) -> Iterator[str]:
    """Yield why nothing, or not all, was read."""
    if limit is not None and report.account.read >= limit * len(topology.sources):
        yield f"--limit {limit} is reached; what may be left is read with: {config.command('run')}"
    elif not report.account.read:
        yield "nothing new to read" if report.resumed else "there was nothing to read"


def _promises(report: Report, topology: Topology) -> Iterator[str]:
    """Yield what was lost where nothing can be read again, in the words of the guarantee."""
    lost = report.account.unsettled and any(
        isinstance(source.spec, Source) and not source.spec.replays() for source in topology.sources
    )
    for name, guarantee in topology.guarantees().items():
        if lost:
            yield f"sink '{name}': {guarantee.text} ({'; '.join(guarantee.why)})"


def _next(report: Report, topology: Topology, config: ConfigFile, code: int, saved: bool) -> Iterator[str]:
    if code == Exit.DONE or report.outcome in ("done", "drained"):
        return
    if topology.checkpoint_path is None:
        yield f"nothing was saved (checkpoint: none); from the start again: {config.command('run')}"
    elif report.exit_code in (Exit.STATE, Exit.LOCKED):
        return
    else:
        how = "goes on from its last checkpoint" if saved else "begins again, because no checkpoint was saved yet,"
        mended = "" if report.outcome == "interrupted" else "when that is mended, it "
        yield f"{mended}{how} with: {config.command('run')}"
