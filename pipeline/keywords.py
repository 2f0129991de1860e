"""Calls of declarations: what is wrong with their arguments is told as it is for a config."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.errors import ConfigError
from pipeline.nearest import did_you_mean

__all__ = ("ByKeyword", "refuse_arguments")


class ByKeyword(msgspec.StructMeta):
    """The type of declarations, whose call gives a `ConfigError` where it would give a TypeError."""

    # Type checkers go by the fields.
    if not TYPE_CHECKING:

        def __call__(cls, *given: Any, **named: Any) -> Any:
            """Make one; see the class."""
            try:
                return super().__call__(*given, **named)
            except TypeError:
                misfits = list(_misfits(cls, given, named))
                if not misfits:
                    raise
                raise ConfigError(*(f"{cls.__name__}: {each}" for each in misfits)) from None


def refuse_arguments(who: str, given: Sequence[Any], named: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments of a call that nobody knows.

    :raises ConfigError: when there are any; ``who`` is for its text.
    """
    known = list(known)
    misfits = [f"{who}: unknown key '{name}'{did_you_mean(name, known)}" for name in named]
    if given:
        misfits.append(f"{who}: {_without_name(given[0], known)}")
    if misfits:
        raise ConfigError(*misfits)


def _misfits(cls: type, given: Sequence[Any], named: Mapping[str, Any]) -> Iterator[str]:
    parameters = inspect.signature(cls).parameters
    by_place = [name for name, each in parameters.items() if each.kind is not Parameter.KEYWORD_ONLY]
    for name in named:
        if name not in parameters:
            yield f"unknown key '{name}'{did_you_mean(name, parameters)}"
        elif name in by_place[: len(given)]:
            yield f"key '{name}' is given twice"
    if len(given) > len(by_place):
        yield _without_name(given[len(by_place)], [name for name in parameters if name not in by_place])
        return
    if not named.keys() <= parameters.keys():
        return  # what is missing may be what was meant
    for name, each in parameters.items():
        if each.default is Parameter.empty and name not in named and name not in by_place[: len(given)]:
            yield f"key '{name}' is missing"


def _without_name(value: Any, known: Sequence[str]) -> str:
    example = f", like {known[0]}={value!r:.40}" if known else ""
    return f"{value!r:.40} is given without a name; write key=value{example}"
