"""The keys under ``alerts:`` and ``metrics:``: when a run tells somebody else how it fares, and whom."""

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from pipeline.plan.address import parse_url
from pipeline.stage import Declared, Duration, key
from pipeline.watch.alerts import Rules

__all__ = ("AlertsConfig", "MetricsConfig", "told_text")

Command = Annotated[list[str], Meta(min_length=1)]


class AlertsConfig(Declared, kw_only=True):
    """When a run raises an alert, and who is told besides the log."""

    failure_rate: Annotated[
        float | None, Meta(ge=0, lt=1), key("Raised when more than this share of the records of the window failed.")
    ] = None
    stalled: Annotated[
        Duration | None, Meta(gt=0), key("Raised when a source's frontier stands still for so long before records.")
    ] = None
    backlog: Annotated[
        int | None, Meta(ge=1), key("Raised when more records than this were unsettled throughout the window.")
    ] = None
    breaker: Annotated[Duration | None, key("Raised when a circuit breaker is open for so long; 0s at once.")] = None
    window: Annotated[Duration, Meta(gt=0, le=3600), key("What failure_rate and backlog look back on.")] = 60.0
    minimum: Annotated[int, Meta(ge=1), key("Records that must have ended in the window for a failure_rate.")] = 20
    repeat: Annotated[
        Duration, Meta(ge=1), key("The same alert is told no more often than this, also while it goes on.")
    ] = 300.0
    webhook: Annotated[str | None, key("A URL that each alert is posted to, as JSON.", secret=True)] = None
    command: Annotated[
        Command | None, key("A program and its arguments, run without a shell; gets JSON on its input.", secret=True)
    ] = None
    timeout: Annotated[Duration, Meta(gt=0, le=60), key("For the webhook, and for the command.")] = 10.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the keys taken together, each with its key."""
        if all(each is None for each in (self.failure_rate, self.stalled, self.backlog, self.breaker)):
            yield "", "names no rule; give at least one of failure_rate, stalled, backlog and breaker"
        if self.webhook is not None:
            yield from _url_problems("webhook", self.webhook)

    def rules(self) -> Rules:
        """Return the rules in numbers."""
        # Texts became numbers when this was made.
        return Rules(
            failure_rate=self.failure_rate,
            stalled=_seconds(self.stalled),
            backlog=self.backlog,
            breaker=_seconds(self.breaker),
            window=_seconds(self.window) or 60.0,
            minimum=self.minimum,
            repeat=_seconds(self.repeat) or 300.0,
        )


class MetricsConfig(Declared, kw_only=True):
    """Where the metrics of a run are pushed to, in the text format of Prometheus."""

    push: Annotated[
        str | Command,
        key("A URL they are posted to, or a program and its arguments; it gets them on its input.", secret=True),
    ]
    every: Annotated[Duration, Meta(ge=1), key("Time between two pushes; the last is at the end of the run.")] = 30.0
    timeout: Annotated[Duration, Meta(gt=0, le=60), key("For a push; one that fails is a warning.")] = 10.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the keys taken together, each with its key."""
        if isinstance(self.push, str):
            for where, text in _url_problems("push", self.push):
                yield where, f"{text}; a program is a list, like [push-metrics, --quiet]"


def told_text(webhook: str | None, command: list[str] | None) -> str:
    """Return who is told, without what may be a secret: the host, the name of the program."""
    found = [f"webhook at {parse_url(webhook)}"] if webhook is not None else []
    found += [f"command {command[0]}"] if command is not None else []
    return " and ".join(found)


def _url_problems(name: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        parse_url(text)
    except ValueError as error:
        yield name, str(error)


def _seconds(value: float | str | None) -> float | None:
    return None if value is None else float(value)
