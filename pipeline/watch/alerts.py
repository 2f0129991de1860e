"""When something is wrong enough to tell somebody: rules over a sliding window, with the time handed in.

An alert is raised when its condition becomes true, told again while that lasts, and cleared when it is over. Between
two raises of one alert at least ``repeat`` seconds pass, so that a condition that comes and goes is told no more than
twice in that time: a raise that comes too early is kept back, and so is what clears it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct, field

from pipeline.units import format_duration
from pipeline.watch.window import Counted, Window

__all__ = ("Alarms", "Alert", "Rules", "Seen")

State = Literal["raised", "repeated", "cleared", "ended"]


class Rules(Struct, frozen=True):
    """What is too much: seconds, records and shares as in a config; None where nobody asked."""

    failure_rate: float | None = None
    stalled: float | None = None
    backlog: int | None = None
    breaker: float | None = None
    window: float = 60.0
    minimum: int = 20
    repeat: float = 300.0


class Alert(Struct, frozen=True):
    """One telling. ``seconds`` is for how long it has been so; ``fields`` are the numbers behind the text.

    ``state`` is "ended" where the run ends before it cleared.
    """

    state: State
    rule: str
    about: str
    text: str
    seconds: float
    fields: Mapping[str, Any]


class Seen(Struct):
    """A run at one moment.

    ``frontiers`` are, by source, the frontier and how many records lie unsettled beyond it; ``open_since`` since when
    breakers are open, by stage, in the seconds of ``counted``. ``where`` tells of a source what its frontier waits for.
    """

    counted: Counted
    frontiers: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    open_since: Mapping[str, float] = field(default_factory=dict[str, float])
    where: Callable[[str], Mapping[str, Any]] = lambda source: {}


class _Wrong(Struct):
    """A condition that holds."""

    rule: str
    about: str
    since: float
    text: str
    fields: dict[str, Any]


class _Raised(Struct):
    """An alert that is up. ``told`` is False where its raise was kept back."""

    wrong: _Wrong
    told: bool


class Alarms:
    """Judges one run, moment after moment; times must not run backwards."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._window = Window(rules.window, rules.window / 60)
        self._up: dict[tuple[str, str], _Raised] = {}
        self._told_at: dict[tuple[str, str], float] = {}
        self._moved: dict[str, tuple[int, float]] = {}
        self._piled_since: float | None = None
        self._failing_since: float | None = None

    @property
    def up(self) -> list[str]:
        """What is wrong now, in words; also what was kept back."""
        return [each.wrong.text for each in self._up.values()]

    def look(self, seen: Seen) -> list[Alert]:
        """Return what is to be told now: what was raised, what goes on, what is over."""
        now = seen.counted.seconds
        wrong = {(each.rule, each.about): each for each in self._judge(seen)}
        self._window.add(seen.counted)
        told = [alert for key, each in wrong.items() if (alert := self._raise(key, each, now)) is not None]
        for key in [key for key in self._up if key not in wrong]:
            raised = self._up.pop(key)
            if raised.told:
                told.append(_alert("cleared", raised.wrong, now))
        return told

    def end(self, now: float) -> list[Alert]:
        """Return what is to be told when the run ends: the alerts that were raised and never cleared."""
        told = [_alert("ended", each.wrong, now) for each in self._up.values() if each.told]
        self._up.clear()
        return told

    def _raise(self, key: tuple[str, str], wrong: _Wrong, now: float) -> Alert | None:
        raised = self._up.get(key)
        due = now - self._told_at.get(key, -float("inf")) >= self._rules.repeat
        first = raised is None or not raised.told
        self._up[key] = _Raised(wrong, due or not first)
        if not due:
            return None
        self._told_at[key] = now
        return _alert("raised" if first else "repeated", wrong, now)

    # --- the rules ---

    def _judge(self, seen: Seen) -> Iterator[_Wrong]:
        yield from self._failures(seen)
        yield from self._stalls(seen)
        yield from self._backlog(seen)
        yield from self._breakers(seen)

    def _failures(self, seen: Seen) -> Iterator[_Wrong]:
        limit = self._rules.failure_rate
        if limit is None:
            return
        lately = self._window.lately(seen.counted, self._rules.window)
        if lately.ended < self._rules.minimum or lately.error_rate <= limit:
            self._failing_since = None
            return
        since = self._failing_since = seen.counted.seconds if self._failing_since is None else self._failing_since
        text = (
            f"{lately.error_rate:.1%} of {lately.ended:,} records failed in the last "
            f"{format_duration(float(f'{lately.seconds:.3g}'))}; more than {limit:.1%}"
        )
        fields = {"value": lately.error_rate, "limit": limit, "failed": lately.failed, "ended": lately.ended}
        yield _Wrong("failure_rate", "", since, text, fields)

    def _stalls(self, seen: Seen) -> Iterator[_Wrong]:
        now, limit = seen.counted.seconds, self._rules.stalled
        if limit is None:
            return
        for source, (number, unsettled) in seen.frontiers.items():
            before = self._moved.get(source)
            if before is None or before[0] != number or not unsettled:
                self._moved[source] = before = (number, now)
            stood = now - before[1]
            if stood >= limit:
                where = dict(seen.where(source))
                detail = f": {where['text']}" if where.get("text") else ""
                text = f"source '{source}': nothing settled for {_rounded(stood)}, {unsettled:,} records wait{detail}"
                fields = {"value": stood, "limit": limit, "unsettled": unsettled, **where, "source": source}
                fields.pop("text", None)
                yield _Wrong("stalled", source, before[1], text, fields)

    def _backlog(self, seen: Seen) -> Iterator[_Wrong]:
        now, limit = seen.counted.seconds, self._rules.backlog
        if limit is None:
            return
        unsettled = sum(count for _, count in seen.frontiers.values())
        if unsettled <= limit:
            self._piled_since = None
            return
        since = self._piled_since = now if self._piled_since is None else self._piled_since
        if now - since >= self._rules.window:
            text = f"{unsettled:,} records are unsettled, and for {_rounded(now - since)} more than {limit:,} were"
            yield _Wrong("backlog", "", since, text, {"value": unsettled, "limit": limit})

    def _breakers(self, seen: Seen) -> Iterator[_Wrong]:
        now, limit = seen.counted.seconds, self._rules.breaker
        if limit is None:
            return
        for stage, since in seen.open_since.items():
            if now - since >= limit:
                text = f"stage '{stage}': its circuit breaker has been open for {_rounded(now - since)}"
                yield _Wrong("breaker", stage, since, text, {"value": now - since, "limit": limit, "stage": stage})


def _alert(state: State, wrong: _Wrong, now: float) -> Alert:
    return Alert(state, wrong.rule, wrong.about, wrong.text, now - wrong.since, wrong.fields)


def _rounded(seconds: float) -> str:
    return format_duration(float(f"{seconds:.2g}"))
