"""Values given beside the file: ``--set stages.archive.with.table=late``, or in the environment."""

from collections.abc import Iterable, Mapping

from pipeline.nearest import did_you_mean
from pipeline.plan.document import MAX_DEPTH, Document, Entry, Mark, Node, parse
from pipeline.plan.naming import ROLES, default_names

__all__ = ("PREFIX", "override")

PREFIX = "PIPELINE__"
"""What the names of variables begin with that override a value: ``PIPELINE__STAGES__ARCHIVE__WITH__TABLE``."""


def override(document: Document, settings: Iterable[str], environ: Mapping[str, str]) -> None:
    """Put values into a document: those of the environment first, then the settings (``path=value``) in their order.

    A value is YAML: a scalar, or a list or mapping in its one-line form. What is wrong with one is a problem of the
    document, in the name of the setting; so is what the checks that follow find in its value.
    """
    if document.root is None:
        return
    for name in sorted(environ):
        if name.startswith(PREFIX):
            steps = name.removeprefix(PREFIX).split("__")
            _Override(document, Mark(f"environment {name}"), steps, loose=True).apply(environ[name])
    for setting in settings:
        path, equals, value = setting.partition("=")
        mark = Mark(f"--set {path}")
        if not equals:
            document.problems.append(mark.problem("expected path=value, like stages.archive.with.table=late"))
        else:
            _Override(document, mark, path.split("."), loose=False).apply(value)


class _LostError(Exception):
    pass


class _Override:
    """One value and where it goes. ``loose`` names are an environment variable's: without case, ``_`` for ``-``."""

    def __init__(self, document: Document, mark: Mark, steps: list[str], *, loose: bool) -> None:
        self._document = document
        self._mark = mark
        self._steps = steps
        self._loose = loose

    def apply(self, text: str) -> None:
        """Put the value in, or add a problem to the document."""
        value = self._parse(text)
        if value is None:
            return
        try:
            self._put(value)
        except _LostError as lost:
            self._document.problems.append(self._mark.problem(str(lost)))

    def _parse(self, text: str) -> Node | None:
        if text.startswith("*"):
            return Node(text, self._mark, raw=text)  # a glob: for YAML an alias, and there are no anchors here
        parsed = parse(text, self._mark.file, self._mark)
        self._document.problems.extend(parsed.problems)
        if parsed.problems:
            return None
        return parsed.root or Node(None, self._mark)

    def _put(self, value: Node) -> None:
        if not all(self._steps) or len(self._steps) > MAX_DEPTH:
            raise _LostError("expected keys with one separator between them")
        node = self._document.root
        for depth, step in enumerate(self._steps[:-1]):
            node = self._down(node, step, depth)
        last = self._steps[-1]
        if node is None or not isinstance(node.value, dict):
            if node is not None and isinstance(node.value, list):
                node.nodes[self._index(node, last, len(self._steps) - 1)] = value
                return
            raise _LostError(
                f"there are no keys below '{self._steps[-2]}'" if len(self._steps) > 1 else "not a mapping"
            )
        name = self._name(node, last)
        node.entries[name] = Entry(self._mark, value)

    def _down(self, node: Node | None, step: str, depth: int) -> Node:
        if node is not None and isinstance(node.value, list):
            return node.nodes[self._index(node, step, depth)]
        if node is None or not isinstance(node.value, dict):
            raise _LostError(f"there are no keys above '{step}'")
        name = self._name(node, step)
        if name not in node.entries or node.entries[name].node.value is None:
            node.entries[name] = Entry(self._mark, Node({}, self._mark))
        return node.entries[name].node

    def _name(self, node: Node, step: str) -> str:
        if not self._loose:
            return step
        return next((name for name in node.entries if _plain(name) == _plain(step)), step.lower())

    def _index(self, node: Node, step: str, depth: int) -> int:
        if step.isascii() and step.isdigit() and len(step) < 6:
            if int(step) < len(node.nodes):
                return int(step)
            raise _LostError(f"no index {step}; there are {len(node.nodes)}, counted from 0")
        if depth != 1 or self._steps[0].lower() != "stages":
            raise _LostError(f"'{step}' is no index of a list")
        return self._stage(node, step)

    def _stage(self, node: Node, step: str) -> int:
        names = default_names([_called(stage) for stage in node.nodes])
        found = [index for index, name in enumerate(names) if self._same(name, step)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _LostError(f"{len(found)} stages are called '{step}'; name them, or give the index")
        raise _LostError(f"no stage '{step}'{did_you_mean(step.lower() if self._loose else step, names)}")

    def _same(self, name: str, step: str) -> bool:
        return _plain(name) == _plain(step) if self._loose else name == step


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _called(stage: Node) -> tuple[str, str, str | None]:
    role = next((role for role in ROLES if stage.child(role)), "")
    kind, name = (_text(stage.child(key)) for key in (role, "name"))
    return role, kind or "", name


def _text(node: Node | None) -> str | None:
    return node.value if node is not None and isinstance(node.value, str) else None
