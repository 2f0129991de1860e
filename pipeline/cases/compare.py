"""What a case expects against what came: differences in words, field by field."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, cast

import msgspec

from pipeline.cases.declared import Case, Expected
from pipeline.cases.load import Ready
from pipeline.cases.trial import Fell, Outcome

__all__ = ("differences",)

_SHOWN = 100
_DIFFERENCES = 20


def differences(ready: Ready, outcome: Outcome) -> list[str]:
    """Return what is not as expected, a line each; lines that belong to the one above begin with two spaces."""
    case = ready.case
    lines = [outcome.trouble] if outcome.trouble else []
    for sink, expected in ready.outputs.items():
        found = [_plain(record) for record in outcome.outputs[sink]]
        lines.extend(_bounded(_of_sink(f"sink '{sink}'", expected, found, case)))
    lines.extend(_bounded(_of_failures(case.failures, outcome.failures)))
    return lines


def _bounded(lines: Iterator[str]) -> Iterator[str]:
    shown = 0
    more = 0
    for line in lines:
        shown += not line.startswith("  ")
        if shown <= _DIFFERENCES:
            yield line
        else:
            more += not line.startswith("  ")
    if more:
        yield f"… and {more:,} more"


# --- a sink -----------------------------------------------------------------------------------------------------------


def _of_sink(who: str, expected: Sequence[Any], found: list[Any], case: Case) -> Iterator[str]:
    named = case.fields == "named"
    pairs = _unordered(expected, found, named) if case.order == "any" else _ordered(expected, found, named)
    for place, one, other in pairs:
        if one is _NOTHING:
            yield f"{who}: not expected: {_shown(other)}"
        elif other is _NOTHING:
            yield f"{who}: missing: {_shown(one)}"
        else:
            yield f"{who}, record {place + 1}:"
            yield from _fields(one, other, named)


_NOTHING = object()
Pair = tuple[int, Any, Any]


def _ordered(expected: Sequence[Any], found: Sequence[Any], named: bool) -> Iterator[Pair]:
    """Yield what differs, in order: pairs of records, or one and nothing."""
    numbers = _numbers(expected, found, named)
    for tag, low, high, left, right in SequenceMatcher(None, *numbers, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        both = min(high - low, right - left)
        yield from ((left + each, expected[low + each], found[left + each]) for each in range(both))
        yield from ((low + each, expected[low + each], _NOTHING) for each in range(both, high - low))
        yield from ((left + each, _NOTHING, found[left + each]) for each in range(both, right - left))


def _unordered(expected: Sequence[Any], found: Sequence[Any], named: bool) -> Iterator[Pair]:
    """Yield what differs, whatever the order: of what has no equal, those that are most alike are pairs."""
    left = list(enumerate(found))
    missing: list[Any] = []
    for one in expected:
        equal = next((pair for pair in left if _same(one, pair[1], named)), None)
        missing.append(one) if equal is None else left.remove(equal)
    for one in missing:
        nearest = max(left, key=lambda pair: _likeness(one, pair[1]), default=None)
        if nearest is None or not _likeness(one, nearest[1]):
            yield 0, one, _NOTHING
        else:
            left.remove(nearest)
            yield nearest[0], one, nearest[1]
    yield from ((place, _NOTHING, other) for place, other in left)


def _numbers(expected: Sequence[Any], found: Sequence[Any], named: bool) -> tuple[list[int], list[int]]:
    """Return a number for each record: equal ones have the same. What is found takes that of what it fits."""
    kinds: list[Any] = []
    by_key: dict[Any, int] = {}

    def number(record: Any) -> int:
        key = _key(record)
        if key not in by_key:
            by_key[key] = len(kinds)
            kinds.append(record)
        return by_key[key]

    left = [number(one) for one in expected]
    if not named:
        return left, [number(other) for other in found]
    wanted = list(dict.fromkeys(left))
    right = [next((each for each in wanted if _same(kinds[each], other, True)), None) for other in found]
    return left, [number(other) if fits is None else fits for fits, other in zip(right, found, strict=True)]


def _fields(one: Any, other: Any, named: bool) -> Iterator[str]:
    if not isinstance(one, dict) or not isinstance(other, dict):
        yield f"  expected {_shown(one)}"
        yield f"  got      {_shown(other)}"
        return
    left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
    names: list[str] = [*left, *(name for name in right if name not in left)]
    for name in names:
        if name not in right:
            yield f"  {name}: expected {_shown(left[name])}, missing"
        elif name not in left:
            if not named:
                yield f"  {name}: not expected, got {_shown(right[name])}"
        elif not _same(left[name], right[name], named):
            yield f"  {name}: expected {_shown(left[name])}, got {_shown(right[name])}"


# --- failures ---------------------------------------------------------------------------------------------------------


def _of_failures(expected: Iterable[Expected], found: Iterable[Fell]) -> Iterator[str]:
    left = list(found)
    for one in expected:
        fits = next((fell for fell in left if _fits(one, fell)), None)
        if fits is not None:
            left.remove(fits)
            continue
        yield f"no failure in stage '{one.stage}'{f' with {one.error!r}' if one.error else ''}{_asked(one)}"
        near = next((fell for fell in left if fell.stage == one.stage), None)
        if near is not None:
            left.remove(near)
            yield f"  got {_failure(near)}"
    for (stage, error, outcome), count in Counter((fell.stage, fell.error, fell.outcome) for fell in left).items():
        times = f" ({count:,} times)" if count > 1 else ""
        yield f"not expected: stage '{stage}' failed: {error[:_SHOWN]}, {outcome}{times}"


def _asked(one: Expected) -> str:
    what: list[str] = [one.outcome] if one.outcome is not None else []
    what += [f"letter {_shown(one.record)}"] if one.record is not msgspec.UNSET else []
    return f" ({', '.join(what)})" if what else ""


def _failure(fell: Fell) -> str:
    letter = f", letter {_shown(_plain(fell.letter))}" if fell.letter is not msgspec.UNSET else ""
    return f"{fell.error[:_SHOWN]!r} ({fell.outcome}{letter})"


def _fits(one: Expected, fell: Fell) -> bool:
    if one.stage != fell.stage or one.error not in fell.error or one.outcome not in (None, fell.outcome):
        return False
    return one.record is msgspec.UNSET or (
        fell.letter is not msgspec.UNSET and _same(one.record, _plain(fell.letter), False)
    )


# --- values -----------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return a record as YAML could hold it: typed ones as mappings, moments and decimals as text."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=repr)


def _key(value: Any) -> Any:
    """Return what equal values have in common; true is not 1, a list is no mapping, and nan is itself."""
    if isinstance(value, bool) or value is None:
        return (value is None, value)
    if isinstance(value, int | float):
        return value if value == value else "nan"
    if isinstance(value, dict):
        return frozenset((name, _key(each)) for name, each in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return ("list", *map(_key, value))  # pyright: ignore[reportUnknownArgumentType]
    return ("text", value)


def _same(one: Any, other: Any, named: bool) -> bool:
    if named and isinstance(one, dict) and isinstance(other, dict):
        return all(name in other and _same(each, other[name], True) for name, each in one.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return bool(_key(one) == _key(other))


def _likeness(one: Any, other: Any) -> int:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return 0
    return sum(1 for name, each in one.items() if name in other and _same(each, other[name], False))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode() if not isinstance(value, float) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
