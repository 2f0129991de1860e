"""The source of the packages, as syntax trees, for the tests of the house's rules."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One import of a module of ours: what is imported from where, and whether when the importer is imported."""

    module: str
    names: tuple[str, ...]
    line: int
    at_once: bool
    for_types: bool


class Module:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(ROOT)
        self.is_package = path.name == "__init__.py"
        parts = self.path.with_suffix("").parts
        self.name = ".".join(parts[:-1] if self.is_package else parts)
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, str(path))

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def all(self) -> tuple[str, ...] | None:
        """What ``__all__`` says, None without it or when it is no tuple of texts."""
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and [ast.unparse(each) for each in statement.targets] == ["__all__"]:
                value = ast.literal_eval(statement.value)
                return cast("tuple[str, ...]", value) if isinstance(value, tuple) else None
        return None

    @cached_property
    def imports(self) -> list[Import]:
        """All imports, wherever they stand."""
        return list(self._imports(self.tree, at_once=True, for_types=False))

    def _imports(self, parent: ast.AST, at_once: bool, for_types: bool) -> Iterator[Import]:
        for node in ast.iter_child_nodes(parent):
            types = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
            now = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, (), node.lineno, now, types)
            elif isinstance(node, ast.ImportFrom):
                names = tuple(alias.name for alias in node.names)
                yield Import(node.module or "", names, node.lineno, now and not node.level, types)
            else:
                yield from self._imports(node, now, types)

    def at(self, node: ast.AST) -> str:
        """Return the place of a piece of syntax, for people."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


def modules(*packages: str) -> list[Module]:
    """Return every module of the packages."""
    return [Module(path) for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
