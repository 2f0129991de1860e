"""Drop records that came before."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from math import isfinite
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from pipeline.batch import Origin
from pipeline.errors import ConfigError, RecordError
from pipeline.expression import compile_expression
from pipeline.stage import Duration, Each, KeyedState, Processor, StageContext, Work, key
from stages.processors.functions import is_async, is_generator, name_of, refuse_timeout
from stages.processors.records import compiled, describe

__all__ = ("Dedupe",)

_LONGEST_KEY = 64
_MARK_EVERY = 1024


class Dedupe(Processor):
    """Let the first record of each key pass and drop the later ones.

    A record whose key is null has no key, and passes. With ``within``, a record passes again once it is further than
    that from the one that passed last, by the time in its own field ``time``. At most ``max_keys`` keys are remembered:
    the one that passed longest ago is forgotten first, and a later record with it passes again.
    """

    by: Annotated[
        str | Callable[[Any], Any] | None,
        key("Expression for the key; in Python also a function; the whole record if left out.", expression=True),
    ] = None
    within: Annotated[Duration | None, key("How far apart, by `time`, records of one key are no repeats.")] = None
    time: Annotated[str | None, key("Field with the time of a record: seconds since 1970, or ISO 8601 text.")] = None
    max_keys: Annotated[
        int, Meta(ge=1), key("Keys remembered at most; the oldest is forgotten, and may then pass again.")
    ] = 1_000_000

    def problems(self) -> Iterable[tuple[str, str]]:
        """Refuse one of within and time alone, and what is no plain function."""
        if (self.within is None) != (self.time is None):
            yield ("time", "needs within") if self.within is None else ("within", "needs time: a field of the record")
        if callable(self.by) and (is_async(self.by) or is_generator(self.by)):
            yield "by", f"{name_of(self.by)} must be a plain function that returns the key"
        yield from refuse_timeout(self)

    def stateful(self) -> bool:
        """Say yes: what came before is saved."""
        return True

    def identity(self) -> Mapping[str, Any]:
        """Return what the saved keys and times were made by."""
        return {"by": name_of(self.by) if callable(self.by) else self.by, "time": self.time}

    def nonfinite(self, fields: frozenset[str] | None) -> frozenset[str] | None:
        """Return the same fields: an expression changes none; what a function does nobody knows."""
        return fields if not callable(self.by) else None

    def per_record(self) -> bool:
        """Tell that it takes single records."""
        return True

    async def open(self, context: StageContext) -> Work:
        """Compile the expression and go on with what the state holds.

        :raises ConfigError: when it is not an expression, or there is no state.
        """
        place = f"stage '{context.name}' (processor dedupe)"
        if context.state is None:
            raise ConfigError(f"{place}: was opened without a state to remember keys in")
        key_of, origins = self._key_of(place)
        seen = _Seen(context, context.state, self.max_keys, cast(float | None, self.within))
        time = self.time

        def keep(record: Any, origin: Origin) -> bool:
            value = key_of(record, origin) if origins else key_of(record)
            if value is None:
                return True
            return seen.passes(_text_of(value), 0.0 if time is None else _time_of(record, time), origin)

        return Each(keep, gives="keep", origins=True)

    def _key_of(self, place: str) -> tuple[Callable[..., Any], bool]:
        by = self.by
        if isinstance(by, str):
            expression = compiled(place, "by", lambda: compile_expression(by))
            return expression.function, expression.uses_origin
        return by or _whole, False


class _Seen:
    """The keys that passed, in saved state.

    Each pass takes the next place in a queue. Under ``k<key>`` are time and place of the key's last pass, under
    ``p<place>`` the key, and under ``m`` now and then a place, from which the first free one is found after a restart.
    One counter for all would be changed by every record, and the state keeps each change until its record is settled.
    """

    def __init__(self, context: StageContext, state: KeyedState, max_keys: int, within: float | None) -> None:
        self._context = context
        self._state = state
        self._max_keys = max_keys
        self._within = within
        self._mark_every = min(_MARK_EVERY, max_keys)  # a place further back may be forgotten by then
        self._next = 0
        self._warned = False
        self._number: tuple[str, int] = ("", -1)
        # The state shows what smaller numbers left; children of one number must see each other's changes as well.
        self._changes: dict[str, Any] = {}
        self._verdicts: dict[tuple[str, str], bool] = {}

    def passes(self, name: str, time: float, origin: Origin) -> bool:
        """Tell whether a record passes, and remember that it did; the same each time for the same record."""
        if self._number != origin[:2]:
            self._number = origin[:2]
            self._changes.clear()
            self._verdicts.clear()
        asked = (name, origin.child)
        verdict = self._verdicts.get(asked)
        if verdict is None:
            verdict = self._verdicts[asked] = self._decide(name, time)
        return verdict

    def _decide(self, name: str, time: float) -> bool:
        held = self._get(f"k{name}")
        if held is not None:
            if self._within is None or abs(time - held[0]) <= self._within:
                return False
            time = max(time, held[0])
        place = self._take_place()
        self._put(f"k{name}", [time, place])
        self._put(f"p{place}", name)
        if place % self._mark_every == 0:
            self._put("m", place)
        self._forget(place - self._max_keys)
        return True

    def _take_place(self) -> int:
        """Return the first place behind those taken, also by records settled before a crash that don't come again."""
        # From the mark on no place is forgotten yet, so the first empty one is free.
        place = max(self._next, self._get("m") or 0)
        while self._get(f"p{place}") is not None:
            place += 1
        if self._next == 0:
            # The bound may have been larger in the run before.
            old = place - self._max_keys - 1
            while self._forget(old):
                old -= 1
        self._next = place + 1
        return place

    def _forget(self, place: int) -> bool:
        name = self._get(f"p{place}") if place >= 0 else None
        if name is None:
            return False
        self._put(f"p{place}", None)
        held = self._get(f"k{name}")
        if held is not None and held[1] == place:  # else it passed again since
            self._put(f"k{name}", None)
            if not self._warned:
                self._warned = True
                self._context.warn(
                    f"more than {self._max_keys} keys: the oldest are forgotten, and pass when they come again"
                )
        return True

    def _get(self, name: str) -> Any:
        if name in self._changes:
            return self._changes[name]
        return self._state.get(name, *self._number)

    def _put(self, name: str, value: Any) -> None:
        self._changes[name] = value
        self._state.put(name, *self._number, value)


def _whole(record: Any) -> Any:
    return record


def _text_of(value: Any) -> str:
    """Return a text that is the same for the same key only: 1, 1.0, "1" and true are four keys."""
    try:
        text = msgspec.json.encode(value, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(f"by: can't make a key of a {describe(value)}: {error}") from None
    if len(text) <= _LONGEST_KEY:
        return text.decode()
    return "#" + blake2b(text, digest_size=16).hexdigest()


def _time_of(record: Any, field: str) -> float:
    value = record.get(field) if record.__class__ is dict else getattr(record, field, None)
    if isinstance(value, str):
        value = _read_time(value, field)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    raise RecordError(f"field '{field}': expected seconds or an ISO 8601 text, got {describe(value)}")


def _read_time(text: str, field: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise RecordError(f"field '{field}': {text[:40]!r} is not an ISO 8601 time") from None
