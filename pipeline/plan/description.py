"""A declaration in words: what its keys are set to, so that a later run can say what has changed."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from typing import Any, cast

import msgspec

from pipeline.plan.interpolation import HIDDEN
from pipeline.plan.schema import Key, keys_of, options_of

__all__ = ("described",)

_MOST = 1000
"""Parts of a value that is said whole, far more than anyone writes by hand."""
_ENTRIES = 100
_DEEPEST = 16
_COLLECTIONS = (list, tuple, set, frozenset)


def described(
    title: str, declared: msgspec.Struct, skip: frozenset[str], hidden: frozenset[str] = frozenset()
) -> Mapping[str, str]:
    """Return what differs from the defaults, by ``title`` and key.

    What only Python can give, such as the records of a list, is said by its type and length.
    """
    keys = [key for key in keys_of(type(declared)) if key.name not in skip]
    return {f"{title}: {key.name}": _shown(declared, key, hidden) for key in keys if _differs(declared, key)}


def _differs(declared: Any, key: Key) -> bool:
    return key.required or getattr(declared, key.name) != key.default


def _shown(declared: Any, key: Key, hidden: frozenset[str]) -> str:
    value = getattr(declared, key.name)
    if key.name in hidden or (key.secret and value is not None):
        return HIDDEN
    if isinstance(value, msgspec.Struct):
        return ", ".join(_parts(value))
    anything = any(option.type is Any for option in options_of(key.annotation))
    return _kind(value) if anything and not callable(value) else str(_plain(value))


def _parts(value: msgspec.Struct) -> Iterator[str]:
    for key in keys_of(type(value)):
        yield f"{key.name} {_shown(value, key, frozenset())}"


def _plain(value: Any, parted: bool = True) -> Any:
    """Return a value as a config would have it: Python's ``int`` and YAML's ``int`` are no difference.

    Of a large one the type and length, and where it is ``parted`` that of each of its large entries.
    """
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    small, whole = _is_small(value), value
    if isinstance(value, Mapping):
        if small or (parted and len(value) <= _ENTRIES):  # pyright: ignore[reportUnknownArgumentType]
            return {name: _plain(each, small) for name, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    elif small and isinstance(value, list):
        return [_plain(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return whole if small and _has_text(whole) else _kind(whole)


def _has_text(value: Any) -> bool:
    """Tell whether Python's text of an object is of what it holds, and not its address: another one in every run."""
    return any("__repr__" in base.__dict__ for base in type(value).__mro__[:-1])


def _kind(value: Any) -> str:
    kind = type(value).__qualname__
    return f"{kind} of {len(cast('Sized', value))}" if isinstance(value, (Mapping, *_COLLECTIONS)) else kind


def _is_small(value: Any) -> bool:
    """Tell whether a value has few parts, and none nested deep: Python's own text of it could fill a disk, or fail."""
    level: list[Any] = [value]
    seen = 0
    for _ in range(_DEEPEST):
        level = list(islice(chain.from_iterable(map(_inside, level)), _MOST + 1))
        seen += len(level)
        if not level or seen > _MOST:
            break
    return not level


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return chain(value, value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.astuple(value)
    return value if isinstance(value, _COLLECTIONS) else ()  # pyright: ignore[reportUnknownVariableType]
