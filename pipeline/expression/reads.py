"""Which fields an expression reads, told by its form alone."""

import ast
from collections.abc import Iterator

from pipeline.expression.text import ExpressionError, Text, operands, path_of

__all__ = ("paths_read",)


def paths_read(text: str) -> frozenset[tuple[str, ...]] | None:
    """Return the paths of the fields that an expression reads (``("http", "ms")`` for ``http.ms``).

    None where it reads the record as a whole, or asks where it comes from.
    """
    try:
        return frozenset(_paths(Text(text).tree))
    except (ExpressionError, _Whole):
        return None


class _Whole(Exception):
    """Raised at what is more than some fields."""


def _paths(tree: ast.expr) -> Iterator[tuple[str, ...]]:
    path = path_of(tree)
    if path == () or (isinstance(tree, ast.Name) and tree.id == "_origin"):
        raise _Whole
    if path is not None:
        yield path
        return
    for part in operands(tree):
        yield from _paths(part)
