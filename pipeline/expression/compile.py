"""The doors: texts in, one native function out."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from msgspec import UNSET

from pipeline.expression.code import Code, Expression, Step, constant, local
from pipeline.expression.loops import Loops, Quick
from pipeline.projection import Projected, whole
from pipeline.widening import has_room

__all__ = ("compile_assignments", "compile_expression", "compile_predicate", "compile_record", "Rebuilt")


class Rebuilt(NamedTuple):
    """How a new record is made of a typed one.

    ``make`` takes, by position, what ``parts`` lists: the name of a field of the old record, or the index of a text.
    """

    make: Callable[..., Any]
    parts: Sequence[str | int]


def compile_expression(text: str, *, typed: bool | None = None, parameters: Sequence[str] = ()) -> Expression:
    """Compile a text to a function that returns its value.

    Records may be dicts and msgspec Structs, in any order; with ``typed`` given, only the one sort or the other. With
    ``parameters`` there is no record: bare names are these, and one written ``name()`` is passed a function without
    arguments, called each time the text calls it.

    :raises ExpressionError: when the text is not an expression of the language.
    """

    def steps(code: Code) -> list[Step]:
        return [("return VALUE", {"VALUE": code.add(text)})]

    return _for_sorts(text, steps, False if parameters else typed, parameters)


def compile_predicate(text: str, *, typed: bool | None = None) -> Expression:
    """Compile a text to a function that returns True or False, by the truth of its value, for the same records.

    :raises ExpressionError: when the text is not an expression of the language.
    """

    def steps(code: Code) -> list[Step]:
        return [("return True if VALUE else False", {"VALUE": code.add(text)})]

    return _for_sorts(text, steps, typed)


def compile_assignments(
    texts: Mapping[str, str],
    *,
    typed: bool | None = None,
    rebuild: Callable[[Callable[..., tuple[Any, ...]]], Callable[..., Any]] | None = None,
    rebuilt: Callable[[type[Any]], Rebuilt] | None = None,
) -> Expression:
    """Compile fields and their texts to one function that assigns them all to a record and returns the record.

    All values are made before the first is assigned: texts see the record as it was, and when one fails nothing has
    changed. A typed record has no place for new fields, so nothing is assigned to it: for one the values are returned,
    a tuple in the order of ``texts``. ``rebuild`` takes the function that does so, with the same arguments, and returns
    the one to use for typed records instead; ``rebuilt`` says the same of a class, for loops to build by. But one that
    `has_room` is assigned to by loops, as long as its fields are unset, and so is ``rebuild`` to do.

    :raises ExpressionError: when a text is not an expression of the language; ``field`` says which.
    """

    def steps(code: Code) -> list[Step]:
        kept = [_keep(index, code.add(text, name)) for index, (name, text) in enumerate(texts.items())]
        if not code.typed:
            return kept + _assigning(texts)
        if code.exact is not None and issubclass(code.exact, Projected):
            return kept + _setting(texts)
        if code.exact is not None and has_room(code.exact, texts):
            return [_refusing_filled(code, texts), *kept, *_setting(texts)]
        if code.exact is None or rebuilt is None:
            return kept + _returning_values(texts)
        return [*kept, _rebuilding(code, rebuilt(code.exact))]

    def set_on(record: Projected, changed: Any) -> Projected:
        for name in texts:
            setattr(record, name, changed[name])
        return record

    by_class = rebuild is None or rebuilt is not None
    return _for_sorts(_listing(texts), steps, typed, rebuild=rebuild, by_class=by_class, set_on=set_on)


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
    text: str,
    steps: Callable[[Code], list[Step]],
    typed: bool | None,
    parameters: Sequence[str] = (),
    rebuild: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    by_class: bool = True,
    set_on: Callable[[Projected, Any], Projected] | None = None,
) -> Expression:
    """Write the function for one sort of records, or for dicts with that for typed ones behind it, and the loop.

    ``by_class`` tells whether the steps can be written for a class of typed records. ``set_on`` takes a projected
    record, and the whole one after the steps, and returns the projected one after them.
    """

    def write(typed: bool, for_typed: Callable[..., Any] | None) -> Expression:
        code = Code(typed, parameters)
        return code.finish(text, steps(code), for_typed)

    def write_quick(kind: type[Any]) -> Quick | None:
        struct = hasattr(kind, "__struct_fields__")
        if not (struct and by_class if typed is not False and kind is not dict else kind is dict and not typed):
            return None
        code = Code(struct, exact=kind)
        return code.finish_quick(steps(code))

    @cache
    def for_typed() -> Expression:
        found = write(True, None)
        return found if rebuild is None else replace(found, function=rebuild(found.function), loop=None)

    if typed is False:
        expression = write(False, None)
    else:

        def evaluate_typed(record: Any, *origin: Any) -> Any:
            if not isinstance(record, Projected):
                # Written for the first of them: nearly all records are dicts.
                return for_typed().function(record, *origin)
            # It is not as a loop would have it, or among others than its like, and means what its line means.
            value = expression.function(whole(record), *origin)
            return set_on(record, value) if set_on is not None else value

        expression = for_typed() if typed else write(False, evaluate_typed)
    if expression.loop is None:
        return expression
    return replace(expression, loop=Loops(expression.function, expression.loop, write_quick))


def _rebuilding(code: Code, rebuilt: Rebuilt) -> Step:
    made = [local(f"_v{part}") if isinstance(part, int) else code.reading(part) for part in rebuilt.parts]
    parts = {f"P{index}": part for index, part in enumerate(made)}
    return f"return {code.name(rebuilt.make)}({', '.join(parts)})", parts


def _returning_values(texts: Mapping[str, str]) -> list[Step]:
    return [(f"return ({''.join(f'_v{index}, ' for index in range(len(texts)))})", {})]


def _assigning(texts: Mapping[str, str]) -> list[Step]:
    assign: list[Step] = [(f"_record[NAME] = _v{index}", {"NAME": constant(name)}) for index, name in enumerate(texts)]
    # Without any text nothing else would notice a record that is none.
    return [*(assign or [("_record.get", {})]), ("return _record", {})]


def _refusing_filled(code: Code, texts: Mapping[str, str]) -> Step:
    """Return the step by which a record whose fields were computed before does not fit a quick loop."""
    return f"if _record.{next(iter(texts))} is not {code.name(UNSET)}: raise _Exception", {}


def _setting(texts: Mapping[str, str]) -> list[Step]:
    return [*((f"_record.{name} = _v{index}", {}) for index, name in enumerate(texts)), ("return _record", {})]


def _keep(index: int, value: ast.expr) -> Step:
    return f"_v{index} = VALUE", {"VALUE": value}


def _listing(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {text}" for name, text in texts.items())
