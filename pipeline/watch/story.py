"""What is known of a run that has ended, from its report or from the state file."""

from typing import Any

import msgspec
from msgspec import Struct, field

from pipeline.watch.report import Account, Report, StageStatus
from pipeline.watch.summary import Summary
from pipeline.watch.words import moment

__all__ = ("Story", "story_of", "story_of_report")


class Story(Struct, kw_only=True):
    """What is known of a run that ended. ``started`` is in seconds since 1970."""

    pipeline: str
    run: int
    outcome: str
    seconds: float
    account: Account
    stages: list[StageStatus] = field(default_factory=list[StageStatus])
    summary: Summary = field(default_factory=Summary)
    bottleneck: str = ""
    error: str = ""
    started: float = 0.0

    def at(self, seconds: float) -> str:
        """Return the time of day so many seconds into the run; with the date in runs of a day or more."""
        return moment((self.summary.started or self.started) + seconds, with_date=self.seconds >= 86_400)


def story_of(pipeline: str, run: int, started: float, outcome: str, saved: Any) -> Story | None:
    """Return the story of a run from the report in a state file; None when it is of a version that can't be read."""
    if not isinstance(saved, dict):
        return None
    try:
        told = msgspec.convert(saved, _Saved)
    except msgspec.ValidationError:
        return None
    numbers = {name: told.account.get(name, 0) for name in Account.__struct_fields__}
    return Story(
        pipeline=pipeline,
        run=run,
        outcome=outcome,
        seconds=told.seconds,
        account=Account(**numbers),
        stages=told.stages,
        summary=told.history,
        bottleneck=told.bottleneck,
        error=told.error,
        started=started,
    )


def story_of_report(report: Report, summary: Summary) -> Story:
    """Return the story of a run that has just ended."""
    return Story(
        pipeline=report.pipeline,
        run=report.run,
        outcome=report.outcome,
        seconds=report.seconds,
        account=report.account,
        stages=report.stages,
        summary=summary,
        bottleneck=report.bottleneck,
        error=report.error,
        started=summary.started,
    )


class _Saved(Struct):
    account: dict[str, int]
    seconds: float
    stages: list[StageStatus] = field(default_factory=list[StageStatus])
    history: Summary = field(default_factory=Summary)
    bottleneck: str = ""
    error: str = ""
