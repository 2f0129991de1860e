"""What a plain YAML scalar means: the core rules of YAML 1.2, where ``no`` is a text and ``010`` is ten."""

import math
import re
from typing import Final

__all__ = ("INVALID", "Invalid", "ScalarError", "kind_of_value", "resolve")

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {word: word[0] in "tT" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = frozenset((".nan", ".NaN", ".NAN"))
_MAX_DIGITS = 20
_MAX_INT = 2**64


class Invalid:
    """Stands for a value that was reported already, so that it is not reported twice."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID: Final = Invalid()


class ScalarError(ValueError):
    """Raised for a plain scalar that is a number we can't hold."""


def resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means.

    :raises ScalarError: for a number that doesn't fit 64 bits.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return _integer(text, 10)
    if match := _BASED.fullmatch(text):
        return _integer(match[1] or match[2], 8 if match[1] else 16)
    return _real(text)


def kind_of_value(value: object) -> str:
    """Return what a value is called in an error: ``text``, ``a whole number``, ``a list``."""
    kinds: dict[type, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        tuple: "a list",
        dict: "a mapping",
        type(None): "nothing",
    }
    return kinds.get(type(value), type(value).__name__)


def _integer(digits: str, base: int) -> int:
    # int() takes quadratic time, and refuses texts of more than 4,300 digits in its own way.
    if len(digits.lstrip("+-0")) > (_MAX_DIGITS if base == 10 else 22) or abs(value := int(digits, base)) >= _MAX_INT:
        raise ScalarError("a whole number that doesn't fit 64 bits; quote it if it is text")
    return value


def _real(text: str) -> str | float:
    if match := _INFINITE.fullmatch(text):
        return float(f"{match[1]}inf")
    if text in _NAN:
        return math.nan
    if not _FLOAT.fullmatch(text):
        return text
    value = float(text)
    if math.isinf(value):
        raise ScalarError("a number that is too large; quote it if it is text")
    return value
