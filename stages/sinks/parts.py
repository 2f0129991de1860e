"""The names of parts: ``out-000001.jsonl.zst`` once it is whole, a hidden name while it is written."""

import os
import re

__all__ = ("final_name", "leftovers", "number_of", "numbered", "parts_of", "path_of", "writing_name")

_ENDING = ".inprogress"
_DIGITS = 6
_WRITING = re.compile(rf"\.(?P<stem>.[^.]*)-\d{{{_DIGITS},}}(?P<suffix>\..*)?", re.DOTALL)


def final_name(path: str, sequence: int) -> str:
    """Return the name of a whole part: the path with a number before its suffixes."""
    folder, stem, suffix = _split(path)
    return os.path.join(folder, f"{stem}-{sequence:0{_DIGITS}d}{suffix}")


def numbered(path: str, number: int) -> str:
    """Return the path with the number of a partition before its suffixes: ``out-p0001.jsonl``."""
    folder, stem, suffix = _split(path)
    return os.path.join(folder, f"{stem}-p{number:04d}{suffix}")


def writing_name(path: str, sequence: int, lineage: str) -> str:
    """Return the name of a part while it is written: hidden, in the same folder, with its lineage."""
    folder, name = os.path.split(final_name(path, sequence))
    return os.path.join(folder, f".{name}.{lineage[:8]}{_ENDING}")


def parts_of(path: str) -> list[str]:
    """Return the whole parts of a path that there are, by number."""
    folder, stem, suffix = _split(path)
    pattern = re.compile(rf"{re.escape(stem)}-(\d{{{_DIGITS},}}){re.escape(suffix)}")
    found = [(int(match[1]), name) for name in _names(folder) if (match := pattern.fullmatch(name))]
    return [os.path.join(folder, name) for _, name in sorted(found)]


def number_of(path: str, part: str) -> int:
    """Return the number of a whole part of a path."""
    _, stem, suffix = _split(path)
    name = os.path.basename(part)
    return int(name[len(stem) + 1 : len(name) - len(suffix)])


def path_of(part: str, lineage: str) -> str | None:
    """Return the path that `writing_name` was given to make a name; None when it made none."""
    folder, name = os.path.split(part)
    match = _WRITING.fullmatch(name.removesuffix(f".{lineage[:8]}{_ENDING}"))
    return None if match is None else os.path.join(folder, match["stem"] + (match["suffix"] or ""))


def leftovers(folder: str, deep: bool, lineage: str) -> list[str]:
    """Return the parts of a lineage that are being written, in a folder or, if ``deep``, everything below it."""
    ending = f".{lineage[:8]}{_ENDING}"
    folders = ((root, names) for root, _, names in os.walk(folder)) if deep else ((folder, _names(folder)),)
    return [
        os.path.join(root, name)
        for root, names in folders
        for name in names
        if name.startswith(".") and name.endswith(ending)
    ]


def _split(path: str) -> tuple[str, str, str]:
    folder, name = os.path.split(path)
    at = name.find(".", 1)
    return (folder, name, "") if at < 0 else (folder, name[:at], name[at:])


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")
    except FileNotFoundError:
        return []
