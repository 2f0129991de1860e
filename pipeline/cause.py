"""What an exception is called to people: its kind, its text, and the line of the user's own code that it came from."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

__all__ = ("cause_of", "keep_place", "place_of", "text_of", "with_kind")

_NOT_THEIRS = frozenset({"pipeline", "stages", "anyio", "aiosqlite", "aiostream", "msgspec", "yaml", "click", "rich"})
"""Packages whose lines tell a user nothing; nor do those of Python's own library."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_KEPT = "_pipeline_place"
_PLAIN = "RecordError"
"""Says no more than that a record is bad, and that is said already."""


def cause_of(error: BaseException) -> str:
    """Return kind, text and place: ``ValueError: no such city (enrich.py:12)``."""
    return _placed(with_kind(type(error).__name__, str(error)), error)


def text_of(error: BaseException) -> str:
    """Return text and place, without the kind."""
    return _placed(str(error), error)


def with_kind(kind: str, text: str) -> str:
    """Return the text of an error behind its kind, where that says anything."""
    return text if kind == _PLAIN and text else ": ".join(filter(None, (kind, text)))


def place_of(error: BaseException) -> str:
    """Return file and line of the innermost frame of users' code that the error came through; empty without one.

    Code that is installed counts only where none of their own is on the way: then it is what the engine called.
    """
    frames = list(_frames(error))
    # An error without any may be ours, which stands for one of theirs.
    for each in (error, *([error.__cause__] if error.__cause__ is not None and not frames else [])):
        kept = getattr(each, _KEPT, None)
        if isinstance(kept, str):
            return kept
        frames = frames or list(_frames(each))
    own = [frame for frame in frames if _INSTALLED.isdisjoint(Path(frame[0]).parts)]
    if not frames:
        return ""
    path, line = own[-1] if own else frames[0]
    return f"{_short(path)}:{line}"


def keep_place(error: BaseException) -> None:
    """Keep the place with the error itself, where it goes on without its traceback: to another process."""
    place = place_of(error)
    if place:
        with suppress(AttributeError):  # of a class with slots
            setattr(error, _KEPT, place)


def _placed(text: str, error: BaseException) -> str:
    place = place_of(error)
    return f"{text} ({place})".lstrip() if place else text


def _frames(error: BaseException) -> Iterator[tuple[str, int]]:
    traceback = error.__traceback__
    while traceback is not None:
        if _is_theirs(traceback.tb_frame):
            yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_theirs(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return bool(package) and package not in _NOT_THEIRS and package not in sys.stdlib_module_names


def _short(path: str) -> str:
    try:
        return path.removeprefix(os.getcwd() + os.sep)
    except FileNotFoundError:  # the working directory is gone
        return path
