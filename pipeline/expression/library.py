"""What expressions can call, each bounded in time and memory."""

from collections.abc import Callable, Iterable, Mapping
from math import trunc
from typing import Any, NamedTuple

__all__ = ("FUNCTIONS", "MANY", "MAX_BITS", "METHODS", "OPERATIONS", "Known", "field_of", "kind_of")

MAX_BITS = 4096
_MAX_LENGTH = 1 << 20
_MAX_ELEMENTS = _MAX_LENGTH // 8  # a list holds pointers of 8 bytes
_MAX_TRIM = 100  # str.strip takes time by text times characters
_MAX_DIGITS = 400  # of round(); a float has no digits beyond
_HIGHEST = 1 << MAX_BITS
_LOWEST = -_HIGHEST
MANY = 1 << 30
_NUMBERS: tuple[type[Any], ...] = (int, float)
_TEXTS: tuple[type[Any], ...] = (str, bytes, bytearray)
_LISTS: tuple[type[Any], ...] = (list, tuple)
_SEQUENCES: tuple[type[Any], ...] = (list, str, tuple)
_CONTAINERS: tuple[type[Any], ...] = (list, tuple, dict, set, frozenset)
_MAPPING: type[Any] = Mapping


def field_of(value: Any, name: str) -> Any:
    """Return a field of a mapping or a typed object; None where it is missing.

    :raises TypeError: when the value is of a kind that has no fields.
    """
    if value is None:
        return None
    names = getattr(value.__class__, "__struct_fields__", None)  # asked first: to be a Mapping takes ten times as long
    if names is not None:
        return getattr(value, name) if name in names else None
    if isinstance(value, _MAPPING):
        return value.get(name)
    names = _declared(value)
    if names is None:
        raise TypeError(f"{kind_of(value)} has no field '{name}'")
    return getattr(value, name) if name in names else None


def kind_of(value: object) -> str:
    """Return the type of a value with an article, as a sentence says it."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _declared(value: Any) -> Iterable[str] | None:
    return getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)


def _subscript(value: Any, key: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, _SEQUENCES):
        try:
            return value[key]
        except IndexError:
            return None
    if isinstance(value, _MAPPING):
        return value.get(key)
    if isinstance(key, str):
        return field_of(value, key)
    raise TypeError(f"{kind_of(value)} has no parts")


def _slice(value: Any, lower: Any, upper: Any, step: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, _SEQUENCES):
        raise TypeError(f"{kind_of(value)} can't be sliced")
    return value[lower:upper:step]


def _get(value: Any, key: Any, default: Any = None) -> Any:
    if isinstance(value, _MAPPING):
        return value.get(key, default)
    found = field_of(value, key)
    return default if found is None else found


def _bounded(value: Any) -> Any:
    _check_size(value, 1)
    return value


def _check_size(value: Any, times: int) -> None:
    if isinstance(value, _TEXTS):
        _check_length(len(value) * times)
    elif isinstance(value, _LISTS) and len(value) * times > _MAX_ELEMENTS:
        raise ValueError(f"a list of more than {_MAX_ELEMENTS:,} elements")


def _check_length(length: int) -> None:
    if length > _MAX_LENGTH:
        raise ValueError(f"a text of more than {_MAX_LENGTH:,} characters")


def _small(value: Any) -> Any:
    if not _LOWEST < value < _HIGHEST:
        raise ValueError(f"an integer of more than {MAX_BITS:,} bits")
    return value


def _multiply(left: Any, right: Any) -> Any:
    if left.__class__ is float or right.__class__ is float:
        return left * right
    if left.__class__ is int and right.__class__ is int:
        product = left * right
        return product if _LOWEST < product < _HIGHEST else _small(product)
    if isinstance(left, int):
        return _repeat(right, left)
    return _repeat(left, right) if isinstance(right, int) else left * right


def _repeat(sequence: Any, count: int) -> Any:
    _check_size(sequence, count)
    # Lists that are many times in a list take no memory, and for ever to compare.
    if isinstance(sequence, _LISTS) and any(isinstance(value, _CONTAINERS) for value in sequence):
        raise TypeError("a list of lists can't be repeated")
    return sequence * count


def _modulo(left: Any, right: Any) -> Any:
    if left.__class__ is not int and isinstance(left, _TEXTS):
        raise TypeError("% is for numbers; texts are joined with +")
    return left % right


def _power(base: Any, exponent: Any) -> Any:
    if not (isinstance(base, _NUMBERS) and isinstance(exponent, _NUMBERS)):
        raise TypeError(f"can't apply ** to {type(base).__name__} and {type(exponent).__name__}")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise ValueError(f"an integer of more than {MAX_BITS:,} bits")
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("a root of a negative number")
    return result


def _round(value: Any, digits: int | None = None) -> Any:
    if digits is not None and not -_MAX_DIGITS <= digits <= _MAX_DIGITS:
        raise ValueError(f"round() takes up to {_MAX_DIGITS} digits")
    if digits is None and not isinstance(value, float):
        _small(value)
    return round(value, digits)


def _integer(value: Any) -> Any:
    if isinstance(value, (str, float)):
        return _small(int(value))
    if isinstance(value, _TEXTS):
        raise TypeError("int() takes a number or a text, not bytes")
    return int(_small(value))


def _string(value: Any) -> str:
    if isinstance(value, _CONTAINERS) or _declared(value) is not None:
        raise TypeError(f"str() takes one value, not a {type(value).__name__}")
    return str(value)


def _trimming(method: Callable[[str, str | None], str]) -> Callable[..., str]:
    def trim(text: str, characters: str | None = None) -> str:
        if characters is not None and len(characters) > _MAX_TRIM:
            raise ValueError(f"{method.__name__}() takes up to {_MAX_TRIM} characters")
        return method(text, characters)

    return trim


def _padding(method: Callable[..., str]) -> Callable[..., str]:
    def pad(text: str, width: int, *fill: str) -> str:
        _check_length(width)
        return method(text, width, *fill)

    return pad


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = str.count(text, old)
    found = found if count < 0 else min(found, count)
    _check_length(len(text) + found * (len(new) - len(old)))
    return text.replace(old, new, count)


def _join(separator: str, parts: Any) -> str:
    if not isinstance(parts, _LISTS):
        raise TypeError(f"join() takes a list, not {kind_of(parts)}")
    _check_length(sum(len(part) for part in parts if isinstance(part, str)) + len(separator) * len(parts))
    return str.join(separator, parts)


class Known(NamedTuple):
    """A function of the language: what it runs, and how many arguments it takes (a method: behind its text)."""

    name: str
    function: Callable[..., Any]
    least: int
    most: int


def _table(*entries: tuple[str, Callable[..., Any], int, int]) -> dict[str, Known]:
    return {entry[0]: Known(*entry) for entry in entries}


FUNCTIONS = _table(
    ("len", len, 1, 1),
    ("min", min, 1, MANY),
    ("max", max, 1, MANY),
    ("abs", abs, 1, 1),
    ("round", _round, 1, 2),
    ("int", _integer, 1, 1),
    ("float", float, 1, 1),
    ("str", _string, 1, 1),
    ("bool", bool, 1, 1),
    ("sum", sum, 1, 1),
    ("any", any, 1, 1),
    ("all", all, 1, 1),
    ("lower", str.lower, 1, 1),
    ("upper", str.upper, 1, 1),
    ("coalesce", len, 1, MANY),  # written out by the compiler
)
# Searches from the right (rfind, rsplit) take quadratic time and format() reads attributes: they are not here.
METHODS = _table(
    ("startswith", str.startswith, 1, 1),
    ("endswith", str.endswith, 1, 1),
    ("strip", _trimming(str.strip), 0, 1),
    ("lstrip", _trimming(str.lstrip), 0, 1),
    ("rstrip", _trimming(str.rstrip), 0, 1),
    ("lower", str.lower, 0, 0),
    ("upper", str.upper, 0, 0),
    ("title", str.title, 0, 0),
    ("capitalize", str.capitalize, 0, 0),
    ("casefold", str.casefold, 0, 0),
    ("split", str.split, 0, 2),
    ("replace", _replace, 2, 3),
    ("find", str.find, 1, 3),
    ("count", str.count, 1, 1),
    ("removeprefix", str.removeprefix, 1, 1),
    ("removesuffix", str.removesuffix, 1, 1),
    ("isdigit", str.isdigit, 0, 0),
    ("isdecimal", str.isdecimal, 0, 0),
    ("isalpha", str.isalpha, 0, 0),
    ("isalnum", str.isalnum, 0, 0),
    ("isspace", str.isspace, 0, 0),
    ("isupper", str.isupper, 0, 0),
    ("islower", str.islower, 0, 0),
    ("join", _join, 1, 1),
    ("zfill", _padding(str.zfill), 1, 1),
    ("ljust", _padding(str.ljust), 1, 2),
    ("rjust", _padding(str.rjust), 1, 2),
    ("center", _padding(str.center), 1, 2),
    ("get", _get, 1, 2),
)
OPERATIONS: dict[str, Any] = {
    "__builtins__": {},
    "_Exception": Exception,
    "_bounded": _bounded,
    "_dict": dict,
    "_field": field_of,
    "_float": float,
    "_getattr": getattr,
    "_hasattr": hasattr,
    "_modulo": _modulo,
    "_multiply": _multiply,
    "_power": _power,
    "_slice": _slice,
    "_subscript": _subscript,
    "_trunc": trunc,
    "_type": type,
    "_whole": int,
    **{f"_function_{name}": known.function for name, known in FUNCTIONS.items()},
    **{f"_method_{name}": known.function for name, known in METHODS.items()},
}
