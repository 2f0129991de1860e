"""Values against their declaration: each problem is reported where it is, and the rest is checked all the same."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal, Protocol, cast, get_args, get_origin

import msgspec
from msgspec import Meta

from pipeline.errors import ConfigError
from pipeline.nearest import did_you_mean
from pipeline.plan.document import Path
from pipeline.plan.scalars import INVALID, kind_of_value
from pipeline.plan.schema import LISTS, MAPPINGS, SCALARS, Key, Option, is_struct, keys_of, options_of, type_text
from pipeline.units import format_duration, format_size, parse_backoff, parse_duration, parse_rate, parse_size

__all__ = ("Report", "build", "check_keys", "check_python", "check_value", "texts_in")


class Report(Protocol):
    """Takes one problem: where it is, what it says, and whether the key is at fault or a character of the text."""

    def __call__(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        """Take note of a problem."""
        ...


def check_value(value: Any, annotation: Any, where: Path, report: Report, *, python: bool = False) -> Any:
    """Return a value as its declaration wants it, `INVALID` when any part of it was reported.

    In YAML a quantity needs its unit; with ``python`` it may be a number, and live objects are welcome.
    """
    return _Check(report, python).value(value, annotation, where)


def check_keys(
    given: Mapping[str, Any],
    keys: Iterable[Key],
    where: Path,
    report: Report,
    others: Iterable[str] = (),
    hint: Callable[[str], str] = lambda _: "",
) -> dict[str, Any]:
    """Return the checked values of a mapping from YAML by key; what is unknown, missing or wrong is reported.

    Values that were reported are left in as `INVALID`. ``others`` are names that may have been meant by an unknown
    key, ``hint`` may tell where it belongs.
    """
    known = {key.name: key for key in keys}
    meant: set[str] = set()
    for name in given:
        if name not in known:
            near = hint(name) or did_you_mean(name, (*known, *others))
            meant.update(key for key in known if near == f"; did you mean '{key}'?")
            report((*where, name), f"unknown key '{name}'{near}", key=True)
    for key in known.values():
        if key.required and key.name not in given and key.name not in meant:
            report(where, f"missing key '{key.name}', {key.type}")
    check = _Check(report, False)
    return {
        name: check.value(value, known[name].annotation, (*where, name))
        for name, value in given.items()
        if name in known
    }


def check_python(declared: msgspec.Struct, report: Report, where: Path = ()) -> None:
    """Check the values of a declaration made in Python; what it was made with was not looked at yet."""
    check = _Check(report, True)
    for key in keys_of(type(declared)):
        check.value(getattr(declared, key.name), key.annotation, (*where, key.name))


def texts_in(value: Any, where: Path) -> Iterator[tuple[Path, str]]:
    """Yield the texts in a value and below it, each with its path."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for name, each in cast("Mapping[str, Any]", value).items():
            yield from texts_in(each, (*where, str(name)))
    elif isinstance(value, list):
        for index, each in enumerate(cast("list[object]", value)):
            yield from texts_in(each, (*where, index))


# --- one value --------------------------------------------------------------------------------------------------------

_UNITS: Mapping[str, Callable[[str], Any]] = {
    "duration": parse_duration,
    "size": parse_size,
    "rate": parse_rate,
    "backoff": parse_backoff,
}
_NO = object()
"""No option took the value."""


class _Check:
    """Checks one value and everything in it."""

    def __init__(self, report: Report, python: bool) -> None:
        self._report = report
        self._python = python

    def value(self, value: Any, annotation: Any, where: Path) -> Any:
        """Return the value as declared, or report it."""
        if value is INVALID:
            return INVALID
        # A word like `auto` beside a quantity is not a quantity that can't be read.
        options = sorted(options_of(annotation), key=lambda option: get_origin(option.type) is not Literal)
        for option in options:
            taken = self._take(value, option, where)
            if taken is not _NO:
                return taken
        self._report(where, self._mismatch(value, annotation, options))
        return INVALID

    def _take(self, value: Any, option: Option, where: Path) -> Any:
        kind, origin = option.type, get_origin(option.type) or option.type
        if kind is Any or kind is object:
            return value
        if kind is None or kind is type(None):
            return None if value is None else _NO
        if option.unit:
            return self._quantity(value, option, where)
        if kind in SCALARS:
            return self._scalar(value, option, where)
        if origin is Literal:
            return value if any(value == each and type(value) is type(each) for each in get_args(kind)) else _NO
        if origin in LISTS and isinstance(value, (list, tuple)):
            return self._list(cast("Sequence[Any]", value), option, where)
        if origin in MAPPINGS and isinstance(value, dict):
            return self._mapping(cast("dict[str, Any]", value), option, where)
        if is_struct(kind):
            return self._struct(value, kind, where)
        return self._other(value, kind, origin)

    def _scalar(self, value: Any, option: Option, where: Path) -> Any:
        if option.type is float and type(value) is int:
            value = float(value)
        if type(value) is not option.type:
            return _NO
        if isinstance(value, float) and not math.isfinite(value) and not self._python:
            self._report(where, "expected a finite number")
            return INVALID
        return self._bounded(value, option, where)

    def _quantity(self, value: Any, option: Option, where: Path) -> Any:
        unit = option.unit or ""
        if isinstance(value, str):
            if option.type is not str:
                return _NO
            try:
                value = _UNITS[unit](value)
            except ValueError as error:
                self._report(where, str(error))
                return INVALID
        elif not self._python or not _is_quantity(value):
            return _NO
        elif not _in_range(value):
            self._report(where, "expected a number that is finite and not negative")
            return INVALID
        return self._bounded(value, option, where)

    def _list(self, value: Sequence[Any], option: Option, where: Path) -> Any:
        origin, arguments = get_origin(option.type) or option.type, get_args(option.type)
        fixed = origin is tuple and arguments and arguments[-1] is not Ellipsis
        if fixed and len(arguments) != len(value):
            self._report(where, f"expected {len(arguments)} values, got {len(value)}")
            return INVALID
        wanted = arguments if fixed else [arguments[0] if arguments else Any] * len(value)
        taken = [self.value(each, wanted[index], (*where, index)) for index, each in enumerate(value)]
        if any(each is INVALID for each in taken):
            return INVALID
        make: Callable[[list[Any]], Any] = origin if origin in (tuple, set, frozenset) else list
        return self._bounded(make(taken), option, where)

    def _mapping(self, value: dict[str, Any], option: Option, where: Path) -> Any:
        arguments = get_args(option.type) or (Any, Any)
        taken = {name: self.value(each, arguments[1], (*where, str(name))) for name, each in value.items()}
        if any(each is INVALID for each in taken.values()):
            return INVALID
        return self._bounded(taken, option, where)

    def _struct(self, value: Any, declared: type[msgspec.Struct], where: Path) -> Any:
        if isinstance(value, declared):
            check_python(value, self._report, where)
            return value
        if not isinstance(value, dict):
            return _NO
        counted = _Counted(self._report)
        taken = check_keys(cast("dict[str, Any]", value), keys_of(declared), where, counted)
        if counted.count or any(each is INVALID for each in taken.values()):
            return INVALID
        return build(declared, taken, where, self._report)

    def _other(self, value: Any, kind: Any, origin: Any) -> Any:
        if self._python:
            # collections.abc.Callable is a class whose instances are what can be called.
            return value if _is_a(value, origin) else _NO
        if not isinstance(kind, type) or origin is not kind or not isinstance(value, str | int | float):
            return _NO
        try:
            return cast("object", msgspec.convert(value, kind))
        except (msgspec.ValidationError, TypeError, ValueError):
            return _NO

    def _bounded(self, value: Any, option: Option, where: Path) -> Any:
        for meta in option.metas:
            text = _breach(value, meta, option.unit)
            if text:
                self._report(where, text)
                return INVALID
        return value

    def _mismatch(self, value: Any, annotation: Any, options: Sequence[Option]) -> str:
        text = f"expected {type_text(annotation)}"
        words = [each for option in options if get_origin(option.type) is Literal for each in get_args(option.type)]
        if isinstance(value, str) and words:
            return text + did_you_mean(value, [word for word in words if isinstance(word, str)])
        return f"{text}, got {kind_of_value(value)}"


class _Counted:
    """Passes problems on, and counts them."""

    def __init__(self, report: Report) -> None:
        self.count = 0
        self._report = report

    def __call__(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        self.count += 1
        self._report(where, text, key=key, offset=offset)


def build(declared: type[msgspec.Struct], values: Mapping[str, Any], where: Path, report: Report) -> Any:
    """Return a declaration with these checked values; what its class has against them is reported."""
    try:
        return declared(**values)
    except ConfigError as error:
        for problem in error.problems:
            report(where, problem.text)
    except (TypeError, ValueError) as error:
        report(where, str(error).split("\n")[0] or type(error).__name__)
    return INVALID


def _is_a(value: object, kind: object) -> bool:
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_quantity(value: Any) -> bool:
    if isinstance(value, tuple):
        pair = cast("tuple[object, ...]", value)
        return len(pair) == 2 and all(map(_is_quantity, pair))
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(value: object) -> bool:
    parts = cast("tuple[float, ...]", value) if isinstance(value, tuple) else (cast("float", value),)
    return all(0 <= part < math.inf for part in parts)


def _breach(value: Any, meta: Meta, unit: str | None) -> str | None:
    """Return what a value breaks of what is said about it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for name, sign, holds in _BOUNDS:
            limit = getattr(meta, name)
            if limit is not None and not holds(value, limit):
                return f"expected {sign} {_quantity(limit, unit)}"
    if isinstance(value, str) and meta.pattern is not None and not re.search(meta.pattern, value):
        return f"expected text that matches {meta.pattern}"
    if isinstance(value, Sized):
        return _wrong_length(len(value), meta, "character" if isinstance(value, str) else "value")
    return None


_BOUNDS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("ge", "at least", lambda value, limit: value >= limit),
    ("gt", "more than", lambda value, limit: value > limit),
    ("le", "at most", lambda value, limit: value <= limit),
    ("lt", "less than", lambda value, limit: value < limit),
    ("multiple_of", "a multiple of", lambda value, limit: value % limit == 0),
)


def _wrong_length(length: int, meta: Meta, of: str) -> str | None:
    if meta.min_length is not None and length < meta.min_length:
        return (
            f"expected at least {meta.min_length} {of}{'s' * (meta.min_length > 1)}"
            if length
            else "expected something, got nothing"
        )
    if meta.max_length is not None and length > meta.max_length:
        return f"expected at most {meta.max_length} {of}{'s' * (meta.max_length > 1)}"
    return None


def _quantity(value: float, unit: str | None) -> str:
    if unit == "duration":
        return format_duration(value)
    return format_size(value) if unit == "size" else f"{value:,}"
