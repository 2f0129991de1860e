"""YAML text as data, with the place of every key and value.

The tree is built here from PyYAML's parse events: its own composer is recursive (200,000 brackets end the process),
keeps the last of two equal keys, and reads scalars by the rules of YAML 1.1.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import yaml
from msgspec import Struct, field, structs

from pipeline.errors import ConfigError, Problem
from pipeline.plan.characters import LINE, CharacterError, decode, end_of, shield, unshield
from pipeline.plan.scalars import INVALID, ScalarError, resolve

__all__ = ("Document", "Entry", "Mark", "Node", "Path", "parse")

MAX_NODES = 20_000
MAX_DEPTH = 50
MAX_ALIASES = 100

Path = tuple[str | int, ...]
"""Keys and indexes from the top of a document down."""


class Mark(NamedTuple):
    """A place: the file (or ``--set stages.x``), and the line and column from 1; 0 where there is none."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, text: str) -> Problem:
        """Return the problem of that text here."""
        return Problem(self.file, self.line, self.column, text)


class Node(Struct):
    """A value of the document: a scalar, a list of nodes, or a mapping to entries.

    ``style`` is the scalar's quote, ``raw`` its text as written (for the place of one of its characters), ``secrets``
    are the values that were put into it.
    """

    value: Any
    mark: Mark
    style: str = ""
    raw: str = ""
    secrets: tuple[str, ...] = ()
    size: int = 1
    height: int = 1

    def data(self) -> Any:
        """Return plain Python data."""
        if isinstance(self.value, list):
            return [node.data() for node in self.nodes]
        if isinstance(self.value, dict):
            return {name: entry.node.data() for name, entry in self.entries.items()}
        return self.value

    @property
    def nodes(self) -> list["Node"]:
        """The values of a list; of anything else, none."""
        value: object = self.value
        return cast("list[Node]", value) if isinstance(value, list) else []

    @property
    def entries(self) -> dict[str, "Entry"]:
        """The entries of a mapping; of anything else, none."""
        value: object = self.value
        return cast("dict[str, Entry]", value) if isinstance(value, dict) else {}

    def child(self, step: str | int) -> "Node | None":
        """Return the value under a key or an index, if there is one."""
        if isinstance(step, int):
            return self.nodes[step] if 0 <= step < len(self.nodes) else None
        entry = self.entries.get(step)
        return entry.node if entry else None

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, "Node"]]:
        """Yield this value and all below it with their paths, in the order of the text."""
        yield path, self
        for index, node in enumerate(self.nodes):
            yield from node.walk((*path, index))
        for name, entry in self.entries.items():
            yield from entry.node.walk((*path, name))

    def copy(self) -> "Node":
        """Return a copy that shares nothing that changes."""
        if isinstance(self.value, list):
            return structs.replace(self, value=[node.copy() for node in self.nodes])
        if isinstance(self.value, dict):
            return structs.replace(self, value={name: Entry(e.mark, e.node.copy()) for name, e in self.entries.items()})
        return structs.replace(self)


class Entry(NamedTuple):
    """A key's place and its value."""

    mark: Mark
    node: Node


class Document(Struct):
    """A parsed file. ``root`` is None when the text isn't YAML; ``problems`` are its mistakes as YAML."""

    file: str
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list[Problem])
    refused: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    """Values that could not be put in, which are problems of the stages they are in."""

    def data(self) -> Any:
        """Return plain Python data, with `INVALID` in the place of what was reported."""
        return self.root.data() if self.root else None

    def find(self, path: Path) -> Node | None:
        """Return the value at a path, if there is one."""
        node = self.root
        for step in path:
            node = node.child(step) if node else None
        return node

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """Return the place of the value at a path, or of its key; of the nearest value around it if there is none."""
        node = self.root
        mark = node.mark if node else Mark(self.file, 1, 1)
        for step in path:
            child = node.child(step) if node else None
            if node is None or child is None:
                break
            mark = node.entries[step].mark if key and isinstance(step, str) else child.mark
            node = child
        return mark

    def within(self, path: Path, offset: int) -> Mark:
        """Return the place of a character of the text at a path; of the text itself where that can't be told."""
        node = self.find(path)
        if node is None or not isinstance(node.value, str) or node.secrets:
            return self.mark(path)
        return _within(node, offset)

    def secrets_in(self, path: Path) -> tuple[str, ...]:
        """Return the values that were put into the text at a path."""
        node = self.find(path)
        return node.secrets if node else ()

    def tainted(self, path: Path) -> bool:
        """Tell whether a secret was put into a value, or anywhere below it."""
        node = self.find(path)
        return node is not None and any(each.secrets for _, each in node.walk())


def parse(content: bytes | str, file: str, mark: Mark | None = None) -> Document:
    """Parse a YAML text; mistakes are in the document's ``problems``, sorted. Never raises for what is in the text.

    With ``mark`` every place is that mark: for texts that do not come from a file.
    """
    document = Document(file)
    try:
        document.root = _Composer(shield(decode(content)), document, mark).compose()
    except CharacterError as error:
        document.problems.append(Problem(file, *error.place, str(error)))
    except ConfigError as error:
        document.problems.extend(error.problems)
    if mark is not None:
        document.problems = [mark.problem(problem.text) for problem in document.problems]
    document.problems.sort()
    return document


# --- the tree ---------------------------------------------------------------------------------------------------------

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Open(Struct):
    """A list or mapping whose end has not come yet; ``key`` is the key that waits for its value."""

    node: Node
    anchor: str | None
    key: Node | None = None
    drop: bool = False
    """The key was refused: its value is read and dropped."""


class _Composer:
    """Builds the tree from events, with nothing on Python's stack, and counts while it does."""

    def __init__(self, text: str, document: Document, mark: Mark | None) -> None:
        self._text = text
        self._document = document
        self._mark = mark
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._aliases = 0
        self._root: Node | None = None
        self._documents = 0

    def compose(self) -> Node | None:
        """Return the root, None for a text that holds no value.

        :raises ConfigError: where the text can't be read any further.
        """
        loader = _Loader(self._text)
        try:
            while loader.check_event():
                self._take(loader.get_event())
        except yaml.MarkedYAMLError as error:
            raise ConfigError(self._syntax(error)) from None
        except yaml.YAMLError as error:
            raise ConfigError(Problem(self._document.file, 1, 1, f"not valid YAML: {error}".split("\n")[0])) from None
        finally:
            loader.dispose()
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ConfigError(self._at(event).problem("a second document begins; a config is one document"))
        elif isinstance(event, yaml.AliasEvent):
            self._close(self._alias(event), None)
        elif isinstance(event, yaml.ScalarEvent):
            self._count(event, 1, 1)
            self._close(self._scalar(event), event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            opened = self._stack.pop()
            self._close(opened.node, opened.anchor)

    def _begin(self, event: Any) -> None:
        self._count(event, 1, 1)
        self._check_tag(event)
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(Node(value, self._at(event)), event.anchor))
        if event.anchor:
            self._anchors[event.anchor] = None  # until its end has come, an alias would hold itself

    def _scalar(self, event: Any) -> Node:
        text = unshield(event.value)
        # With an anchor the text begins somewhere behind the mark.
        raw = "" if event.anchor else self._text[event.start_mark.index : event.end_mark.index]
        node = Node(text, self._at(event), event.style or "", raw)
        if self._check_tag(event) and event.implicit[0]:
            try:
                node.value = resolve(text)
            except ScalarError as error:
                self._report(node.mark, str(error))
                node.value = INVALID
        return node

    def _alias(self, event: Any) -> Node:
        self._aliases += 1
        name = event.anchor
        if self._aliases > MAX_ALIASES:
            raise ConfigError(self._at(event).problem(f"more than {MAX_ALIASES} aliases"))
        if name not in self._anchors:
            raise ConfigError(self._at(event).problem(f"alias '*{name}' has no anchor '&{name}' above it"))
        target = self._anchors[name]
        if target is None:
            raise ConfigError(self._at(event).problem(f"alias '*{name}' stands for what it is itself a part of"))
        self._count(event, target.size, target.height)
        return structs.replace(target.copy(), mark=self._at(event), raw="")

    def _close(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.node.size += node.size
        parent.node.height = max(parent.node.height, node.height + 1)
        if isinstance(parent.node.value, list):
            parent.node.nodes.append(node)
        elif parent.key is None:
            parent.key, parent.drop = node, not self._check_key(parent.node, node)
        else:
            key, parent.key = parent.key, None
            if not parent.drop:
                parent.node.entries[key.value] = Entry(key.mark, node)

    def _check_key(self, mapping: Node, key: Node) -> bool:
        if key.value == "<<" and not key.style:
            self._report(
                key.mark, "merge keys ('<<') are not supported; repeat the keys, or give the whole value an alias"
            )
        elif not isinstance(key.value, str):
            if key.value is not INVALID:
                self._report(
                    key.mark, f"a key must be text; quote it: '{key.raw}'" if key.raw else "a key must be text"
                )
        elif key.value in mapping.entries:
            line = mapping.entries[key.value].mark.line
            self._report(key.mark, f"duplicate key '{key.value}'" + (f"; it is on line {line} already" if line else ""))
        else:
            return True
        return False

    def _check_tag(self, event: Any) -> bool:
        if event.tag is None:
            return True
        self._report(self._at(event), f"tags ('{_short_tag(event.tag)}') are not supported; write the value without it")
        return False

    def _count(self, event: Any, nodes: int, height: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise ConfigError(self._at(event).problem(f"more than {MAX_NODES:,} values, aliases expanded"))
        if len(self._stack) + height > MAX_DEPTH:
            raise ConfigError(self._at(event).problem(f"nested more than {MAX_DEPTH} deep"))

    def _at(self, event: Any) -> Mark:
        if self._mark is not None:
            return self._mark
        return Mark(self._document.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _report(self, mark: Mark, text: str) -> None:
        self._document.problems.append(mark.problem(text))

    def _syntax(self, error: yaml.MarkedYAMLError) -> Problem:
        at = error.problem_mark or error.context_mark
        line, column, index = (at.line + 1, at.column + 1, at.index) if at else (1, 1, -1)
        if index >= len(self._text):  # libyaml counts a line behind the last one
            line, column = end_of(self._text)
        if self._text[index : index + 1] == "\t":
            text = "a tab can't indent or separate here; use spaces"
        else:
            text = unshield(f"not valid YAML: {error.problem}{_around(error, line)}")
        return Problem(self._document.file, line, column, text)


def _around(error: yaml.MarkedYAMLError, line: int) -> str:
    """Return what was being read, and where it began: an open quote or bracket is seen only lines further down."""
    if not error.context:
        return ""
    begun = error.context_mark.line + 1 if error.context_mark else line
    return f" ({error.context}" + (f" that begins on line {begun})" if begun < line else ")")


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


# --- the place of a character -----------------------------------------------------------------------------------------

_ESCAPE = re.compile(r"\\(?:x..|u....|U........|.)|.", re.DOTALL)
_SINGLE = re.compile(r"''|.", re.DOTALL)


def _within(node: Node, offset: int) -> Mark:
    raw, mark = node.raw, node.mark
    if not raw or not mark.line:
        return mark
    if node.style == "|":
        return _in_block(node, offset)
    if "\n" in raw or "\r" in raw or node.style == ">":
        return mark
    if not node.style:
        return mark._replace(column=mark.column + offset)
    pieces: Sequence[str] = (_ESCAPE if node.style == '"' else _SINGLE).findall(raw[1:-1])
    return mark._replace(column=mark.column + 1 + sum(map(len, pieces[:offset])))


def _in_block(node: Node, offset: int) -> Mark:
    before = node.value[:offset].split("\n")
    lines = LINE.split(node.raw)[1:]
    index = len(before) - 1
    if index >= len(lines):
        return node.mark
    written, text = lines[index], node.value.split("\n")[index]
    return Mark(node.mark.file, node.mark.line + 1 + index, len(written) - len(text) + len(before[-1]) + 1)
