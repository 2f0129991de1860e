"""Words with one meaning each, and functions that can be read at a glance."""

import ast
import re
from collections.abc import Iterator
from statistics import median

import pytest

from tests.rules.reading import Module, modules

EVERY = modules("pipeline", "stages")

BANNED = {"message", "item", "items", "job", "jobs", "manager", "handler", "helper", "helpers", "util", "utils"}
"""Words that mean too much. `event` and `node` are left to log events and syntax trees."""
NOT_OURS = {"items", "json_items"}
"""Names that Python gives."""
ERROR_TEXTS = {"pipeline.expression.report", "pipeline.expression.text"}
"""Where a message is the text of an error."""
LONGEST = 60


def names(module: Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node, node.name
        elif isinstance(node, ast.arg):
            yield node, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node, node.id


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_names_use_the_words_of_the_house(module: Module) -> None:
    banned = BANNED - ({"message"} if module.name in ERROR_TEXTS else set())
    wrong = [
        f"{module.at(node)}: {name}" for node, name in names(module) if words(name) & banned and name not in NOT_OURS
    ]
    wrong += [str(module.path)] if words(module.path.stem) & BANNED else []
    assert not wrong, f"words that are not used here: {wrong}"


def lengths(module: Module) -> dict[str, int]:
    """Return the lines of each function without its docstring."""
    found: dict[str, int] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            last = node.end_lineno or node.lineno
            found[f"{module.at(node)} {node.name}"] = last - body[0].lineno + 1 if body else 1
    return found


def test_functions_are_short() -> None:
    every = {place: length for module in EVERY for place, length in lengths(module).items()}
    assert not {place: length for place, length in every.items() if length > LONGEST}
    assert median(every.values()) <= 6
    assert sum(length > 25 for length in every.values()) < len(every) * 0.08
