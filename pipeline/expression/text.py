"""A text, the tree that Python's parser makes of it, and the place of each part."""

import ast
import re
import warnings
from collections.abc import Iterator
from typing import NoReturn

__all__ = ("ExpressionError", "Text", "children", "operands", "path_of", "shorten")

_MAX_TEXT = 10_000
_MAX_NODES = 500
_MAX_DEPTH = 50  # Python's own compiler needs several levels of its stack for one of ours


class ExpressionError(ValueError):
    """Raised when a text is not an expression of the language.

    ``column`` counts characters of the text from 0; ``field`` is the field it was to be assigned to, if any.
    """

    def __init__(self, message: str, column: int = 0, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.column = column
        self.field = field


class Text:
    """A text, the tree that Python makes of it, and where each part of the tree stands in the text."""

    def __init__(self, text: str, target: str | None = None) -> None:
        self.text = text
        self.target = target
        self._check_characters()
        stripped = text.strip()
        # Within parentheses a line may end anywhere, as it may in YAML.
        self._wrapped = "\n" in stripped
        self._shift = len(text) - len(text.lstrip()) - self._wrapped
        self._lines = (f"({stripped}\n)" if self._wrapped else stripped).split("\n")
        self.tree = self._parse()
        self._check_size()

    def refuse(self, message: str, place: ast.expr | ast.keyword | int) -> NoReturn:
        """Raise the error for a place in the text."""
        column = place if isinstance(place, int) else self._offset(place.lineno, place.col_offset)
        raise ExpressionError(message, min(max(column, 0), len(self.text)), self.target) from None

    def part(self, tree: ast.expr) -> str:
        """Return the text of a part, on one line and not too long."""
        end = self._offset(tree.end_lineno or 1, tree.end_col_offset or 0)
        return shorten(" ".join(self.text[self._offset(tree.lineno, tree.col_offset) : end].split()), 60)

    def _check_characters(self) -> None:
        if len(self.text) > _MAX_TEXT:
            self.refuse(f"longer than {_MAX_TEXT:,} characters", _MAX_TEXT)
        if not self.text.strip():
            self.refuse("empty; an expression is needed", 0)
        if bad := re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", self.text):
            self.refuse(f"character {bad[0]!a} is not allowed", bad.start())
        if (dunder := self.text.find("__")) >= 0:
            self.refuse("'__' is not allowed", dunder)

    def _parse(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # '\d' and '1if x' are mistakes here, not warnings
                tree = ast.parse("\n".join(self._lines), mode="eval").body
        except SyntaxError as error:
            line = min(max(error.lineno or 1, 1), len(self._lines))
            self.refuse(f"not an expression: {error.msg}", self._start(line) + (error.offset or 1) - 1)
        except (RecursionError, MemoryError):
            self.refuse("nested too deeply", 0)
        except ValueError as error:
            self.refuse(f"not an expression: {error}", 0)
        if self._wrapped and (tree.lineno, tree.col_offset) == (1, 0):
            self.refuse("parentheses do not match, or a list of values stands without them", 0)
        return tree

    def _check_size(self) -> None:
        count, level = 0, [self.tree]
        for _ in range(_MAX_DEPTH):
            count += len(level)
            if count > _MAX_NODES:
                self.refuse(f"more than {_MAX_NODES} parts", 0)
            level = [child for parent in level for child in children(parent)]
        if level:
            self.refuse(f"nested more than {_MAX_DEPTH} deep", level[0])

    def _offset(self, line: int, column: int) -> int:
        ahead = self._lines[line - 1].encode()[:column]
        return self._start(line) + len(ahead.decode(errors="ignore"))

    def _start(self, line: int) -> int:
        return self._shift + sum(len(text) + 1 for text in self._lines[: line - 1])


def children(tree: ast.AST) -> Iterator[ast.expr]:
    """Return the parts right below a part."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr):
            yield child
        else:  # a keyword, a comprehension: refused later, and its size counts until then
            yield from children(child)


def operands(tree: ast.expr) -> list[ast.expr]:
    """Return the parts right below that are values: not the name of what is called."""
    match tree:
        case ast.Call(func=ast.Attribute(value=base), args=values):
            return [base, *values]
        case ast.Call(args=values):
            return values
        case _:
            return list(children(tree))


def path_of(tree: ast.expr) -> tuple[str, ...] | None:
    """Return the names that lead from the record to a field, none of them for the record itself; None for the rest."""
    match tree:
        case ast.Name(id="_record"):
            return ()
        case ast.Name(id=name) if name != "_origin":
            return (name,)
        case ast.Attribute(value=base, attr=name) | ast.Subscript(value=base, slice=ast.Constant(value=str() as name)):
            above = path_of(base)
            return None if above is None else (*above, name)
        case _:
            return None


def shorten(text: str, length: int) -> str:
    """Return a text cut to a length, the cut shown."""
    return text if len(text) <= length else text[: length - 1] + "…"
