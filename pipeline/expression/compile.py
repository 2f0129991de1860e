"""The doors: texts in, one native function out."""

import ast
from collections.abc import Mapping, Sequence

from pipeline.expression.code import Code, Expression, Step, constant

__all__ = ("compile_assignments", "compile_expression", "compile_predicate", "compile_record")


def compile_expression(text: str, *, typed: bool = False, parameters: Sequence[str] = ()) -> Expression:
    """Compile a text to a function that returns its value.

    Records are dicts, or msgspec Structs when ``typed``. With ``parameters`` there is no record: bare names are these,
    and one written ``name()`` is passed a function without arguments, called each time the text calls it.

    :raises ExpressionError: when the text is not an expression of the language.
    """
    code = Code(typed, parameters)
    value = code.add(text)
    return code.finish(text, [("return VALUE", {"VALUE": value})])


def compile_predicate(text: str, *, typed: bool = False) -> Expression:
    """Compile a text to a function that returns True or False, by the truth of its value.

    :raises ExpressionError: when the text is not an expression of the language.
    """
    code = Code(typed)
    value = code.add(text)
    return code.finish(text, [("return True if VALUE else False", {"VALUE": value})])


def compile_assignments(texts: Mapping[str, str], *, typed: bool = False) -> Expression:
    """Compile fields and their texts to one function that assigns them all to a record and returns the record.

    All values are made before the first is assigned: texts see the record as it was, and when one fails nothing has
    changed. When ``typed``, nothing is assigned and the values are returned, a tuple in the order of ``texts``.

    :raises ExpressionError: when a text is not an expression of the language; ``field`` says which.
    """
    code = Code(typed)
    steps = [_keep(index, code.add(text, name)) for index, (name, text) in enumerate(texts.items())]
    if typed:
        steps.append((f"return ({''.join(f'_v{index}, ' for index in range(len(steps)))})", {}))
    else:
        assign = [(f"_record[NAME] = _v{index}", {"NAME": constant(name)}) for index, name in enumerate(texts)]
        steps += [*assign, ("return _record", {})]
    return code.finish(_listing(texts), steps)


def compile_record(texts: Mapping[str, str], parameters: Sequence[str]) -> Expression:
    """Compile fields and their texts over parameters to one function that returns a new dict of them.

    :raises ExpressionError: when a text is not an expression of the language; ``field`` says which.
    """
    code = Code(False, parameters)
    steps = [_keep(index, code.add(text, name)) for index, (name, text) in enumerate(texts.items())]
    names: dict[str, ast.expr] = {f"K{index}": constant(name) for index, name in enumerate(texts)}
    steps.append((f"return {{{', '.join(f'K{index}: _v{index}' for index in range(len(texts)))}}}", names))
    return code.finish(_listing(texts), steps)


def _keep(index: int, value: ast.expr) -> Step:
    return f"_v{index} = VALUE", {"VALUE": value}


def _listing(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {text}" for name, text in texts.items())
