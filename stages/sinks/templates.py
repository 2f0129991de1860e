"""File names with fields in them, like ``out/{country}/{day}.jsonl``, kept inside the folder that the config names."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from itertools import chain
from operator import itemgetter
from pathlib import Path
from string import Formatter
from typing import Any
from uuid import UUID

from pipeline.errors import RecordError

__all__ = ("Template",)

_LONGEST = 200
_SLASHES = re.compile("//+")
_NAMING = frozenset({str, int})


class Template:
    """A path with fields of the record in it. Everything up to the folder before the first field is fixed.

    :raises ValueError: when the path can't be read, or has fields and no fixed folder.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._pieces = _parse(path)
        self.fields = tuple(name for _, name in self._pieces if name is not None)
        self.folder = _fixed_folder(path, self._pieces[0][0]) if self.fields else os.path.dirname(path)
        self._real_folder = ""
        self._values: Callable[[Any], Any] | None = itemgetter(*self.fields) if self.fields else None

    @property
    def fixed(self) -> str:
        """The path of a template without fields."""
        return "".join(text for text, _ in self._pieces)

    def could_make(self, path: str) -> bool:
        """Tell whether some record might have this path."""
        pattern = "".join(re.escape(text) + ("" if name is None else "[^/]+") for text, name in self._pieces)
        return re.fullmatch(_SLASHES.sub("/", pattern), _SLASHES.sub("/", path), re.DOTALL) is not None

    def render(self, record: Any) -> str:
        """Return the path for a record.

        :raises RecordError: when a field is missing, or would make a path that is unsafe; names the field.
        """
        return self._render(tuple([_field(record, name) for name in self.fields]))

    def group(self, records: Sequence[Any]) -> dict[Any, list[int]]:
        """Return the indexes of records by what is the same where, and only where, the path is: each is rendered once.

        Groups are in the order of their first records, and so are the records of a group.
        """
        groups: dict[Any, list[int]] = {}
        for index, values in enumerate(self._values_of(records)):
            groups.setdefault(values, []).append(index)
        return groups

    def _values_of(self, records: Sequence[Any]) -> Iterable[Any]:
        try:
            values = list(map(self._values, records)) if self._values and set(map(type, records)) == {dict} else None
        except KeyError:
            values = None
        if values is None:
            return range(len(records))
        flat = values if len(self.fields) == 1 else chain.from_iterable(values)
        # Equal texts and integers make equal names; of other types equal ones may not, as True, 1 and 1.0 do not.
        return values if _NAMING.issuperset(map(type, flat)) else range(len(records))

    def confined(self, path: str) -> bool:
        """Tell whether a rendered path lies under the fixed folder once all links are followed."""
        if not self._real_folder:
            self._real_folder = os.path.realpath(self.folder)
        return Path(os.path.realpath(os.path.dirname(path))).is_relative_to(self._real_folder)

    def _render(self, values: tuple[Any, ...]) -> str:
        texts = iter([_text(name, value) for name, value in zip(self.fields, values, strict=True)])
        path = "".join([text + (next(texts) if name is not None else "") for text, name in self._pieces])
        for segment in path[len(self.folder) :].split("/"):
            if segment.startswith("."):
                raise RecordError(f"makes the file name {segment!r}; hidden names are refused")
            if len(os.fsencode(segment)) > _LONGEST:
                raise RecordError(f"makes a file name of more than {_LONGEST} bytes: {segment[:40]!r}...")
        return path


def _parse(path: str) -> list[tuple[str, str | None]]:
    """Return pairs of text and the name of the field behind it."""
    pieces: list[tuple[str, str | None]] = []
    for text, name, form, conversion in Formatter().parse(path):
        if form or conversion:
            raise ValueError(f"{{{name}}} takes no format; set a field of the text you want before the sink")
        if name is not None and (not name or set(name) & set(".[]/")):
            raise ValueError(f"expected the name of a field between braces, found {{{name}}}")
        pieces.append((text, name))
    return pieces or [("", None)]


def _fixed_folder(path: str, prefix: str) -> str:
    folder = os.path.dirname(prefix)
    if not folder.strip("/"):
        raise ValueError("the names of files come from records, so a fixed folder must come first, as in out/{field}")
    if ".." in path[len(folder) :].split("/"):
        raise ValueError("'..' behind a field would leave the fixed folder")
    return folder


def _field(record: Any, name: str) -> Any:
    try:
        return record[name] if isinstance(record, dict) else getattr(record, name)  # pyright: ignore[reportUnknownVariableType]
    except (KeyError, AttributeError):
        raise RecordError(f"has no field {name!r}, which the file name needs") from None


_TEXT: dict[type, Callable[[Any], str]] = {bool: lambda value: str(value).lower(), int: str, float: repr}


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, (date, UUID)):
        text = str(value)
    elif type(value) in _TEXT:
        text = _TEXT[type(value)](value)
    else:
        raise RecordError(f"field {name!r} makes no file name: expected text or a number, found {type(value).__name__}")
    if not text or text in (".", "..") or not text.isprintable() or "/" in text or "\\" in text:
        raise RecordError(f"field {name!r} makes no safe file name: {text[:40]!a}")
    if len(text) > _LONGEST:
        raise RecordError(f"field {name!r} makes a file name of more than {_LONGEST} characters: {text[:40]!a}...")
    return text
