"""The doors: texts in, one native function out."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.expression.code import Code, Expression, Step, constant

__all__ = ("compile_assignments", "compile_expression", "compile_predicate", "compile_record")


def compile_expression(text: str, *, typed: bool | None = None, parameters: Sequence[str] = ()) -> Expression:
    """Compile a text to a function that returns its value.

    Records may be dicts and msgspec Structs, in any order; with ``typed`` given, only the one sort or the other. With
    ``parameters`` there is no record: bare names are these, and one written ``name()`` is passed a function without
    arguments, called each time the text calls it.

    :raises ExpressionError: when the text is not an expression of the language.
    """

    def write(typed: bool, for_typed: Callable[..., Any] | None) -> Expression:
        code = Code(typed, parameters)
        value = code.add(text)
        return code.finish(text, [("return VALUE", {"VALUE": value})], for_typed)

    return _for_sorts(write, False if parameters else typed)


def compile_predicate(text: str, *, typed: bool | None = None) -> Expression:
    """Compile a text to a function that returns True or False, by the truth of its value, for the same records.

    :raises ExpressionError: when the text is not an expression of the language.
    """

    def write(typed: bool, for_typed: Callable[..., Any] | None) -> Expression:
        code = Code(typed)
        value = code.add(text)
        return code.finish(text, [("return True if VALUE else False", {"VALUE": value})], for_typed)

    return _for_sorts(write, typed)


def compile_assignments(
    texts: Mapping[str, str],
    *,
    typed: bool | None = None,
    rebuild: Callable[[Callable[..., tuple[Any, ...]]], Callable[..., Any]] | None = None,
) -> Expression:
    """Compile fields and their texts to one function that assigns them all to a record and returns the record.

    All values are made before the first is assigned: texts see the record as it was, and when one fails nothing has
    changed. A typed record has no place for new fields, so nothing is assigned to it: for one the values are returned,
    a tuple in the order of ``texts``. ``rebuild`` takes the function that does so, with the same arguments, and returns
    the one to use for typed records instead.

    :raises ExpressionError: when a text is not an expression of the language; ``field`` says which.
    """

    def write(typed: bool, for_typed: Callable[..., Any] | None) -> Expression:
        code = Code(typed)
        steps = [_keep(index, code.add(text, name)) for index, (name, text) in enumerate(texts.items())]
        steps += _returning_values(texts) if typed else _assigning(texts)
        return code.finish(_listing(texts), steps, for_typed)

    return _for_sorts(write, typed, rebuild)


def compile_record(texts: Mapping[str, str], parameters: Sequence[str]) -> Expression:
    """Compile fields and their texts over parameters to one function that returns a new dict of them.

    :raises ExpressionError: when a text is not an expression of the language; ``field`` says which.
    """
    code = Code(False, parameters)
    steps = [_keep(index, code.add(text, name)) for index, (name, text) in enumerate(texts.items())]
    names: dict[str, ast.expr] = {f"K{index}": constant(name) for index, name in enumerate(texts)}
    steps.append((f"return {{{', '.join(f'K{index}: _v{index}' for index in range(len(texts)))}}}", names))
    return code.finish(_listing(texts), steps)


def _for_sorts(
    write: Callable[[bool, Callable[..., Any] | None], Expression],
    typed: bool | None,
    rebuild: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Expression:
    """Write the function for one sort of records, or for dicts with that for typed ones behind it."""
    if typed is False:
        return write(False, None)
    expression = write(True, None)
    if rebuild is not None:
        expression = replace(expression, function=rebuild(expression.function), loop=None)
    return expression if typed else write(False, expression.function)


def _returning_values(texts: Mapping[str, str]) -> list[Step]:
    return [(f"return ({''.join(f'_v{index}, ' for index in range(len(texts)))})", {})]


def _assigning(texts: Mapping[str, str]) -> list[Step]:
    assign: list[Step] = [(f"_record[NAME] = _v{index}", {"NAME": constant(name)}) for index, name in enumerate(texts)]
    # Without any text nothing else would notice a record that is none.
    return [*(assign or [("_record.get", {})]), ("return _record", {})]


def _keep(index: int, value: ast.expr) -> Step:
    return f"_v{index} = VALUE", {"VALUE": value}


def _listing(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {text}" for name, text in texts.items())
