"""Native code, written from a checked text.

None of the user's tree is run as it is: every part is checked against what is allowed, and new code is written for it.
In that code a line number is not a line: it is the number of the part of the text an instruction was written for. So
evaluating costs nothing extra, and an exception still says which part failed.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from pipeline.expression.declared import Declared
from pipeline.expression.library import FUNCTIONS, MANY, MAX_BITS, METHODS, Known
from pipeline.expression.loops import Loop, Quick, native, quick_loop
from pipeline.expression.report import Place, Report
from pipeline.expression.text import ExpressionError, Text, shorten

__all__ = ("Code", "Expression", "Step", "constant", "local")

Step = tuple[str, dict[str, ast.expr]]
"""A statement as a template, and what stands for its capital names."""


_SYMBOLS: dict[type[ast.AST], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.And: "and",
    ast.Or: "or",
    ast.Not: "not ",
    ast.USub: "-",
    ast.UAdd: "+",
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "(_T if _type(_T := LEFT + RIGHT) is _whole or _type(_T) is _float else _bounded(_T))",
    ast.Sub: "LEFT - RIGHT",
    # Both sides are made before either is judged, hence no `and` and no `or`.
    ast.Mult: "(_T * _U if (_type(_T := LEFT) is _float) | (_type(_U := RIGHT) is _float) else _multiply(_T, _U))",
    ast.Div: "LEFT / RIGHT",
    ast.FloorDiv: "LEFT // RIGHT",
    ast.Mod: "(_T % _U if (_type(_T := LEFT) is _whole) & (_type(_U := RIGHT) is _whole) else _modulo(_T, _U))",
    ast.Pow: "_power(LEFT, RIGHT)",
}
_BY_WHOLE: dict[type[ast.operator], str] = {
    ast.Mult: (
        "(_T * RIGHT if _type(_T := LEFT) is _whole and _T.bit_length() <= MOST or _type(_T) is _float"
        " else _multiply(_T, RIGHT))"
    ),
    ast.Mod: "(_T % RIGHT if _type(_T := LEFT) is _whole else _modulo(_T, RIGHT))",
}
"""By an integer that is written down, MOST being the bits of what it can multiply within bounds."""
_FOREIGN = {"true": "True", "false": "False", "null": "None", "nil": "None"}
_REFUSED: dict[type[ast.expr], str] = {
    ast.Await: "await",
    ast.DictComp: "a comprehension",
    ast.FormattedValue: "an f-string",
    ast.GeneratorExp: "a comprehension",
    ast.JoinedStr: "an f-string",
    ast.Lambda: "lambda",
    ast.ListComp: "a comprehension",
    ast.NamedExpr: "':='",
    ast.SetComp: "a comprehension",
    ast.Slice: "a slice of several dimensions",
    ast.Starred: "'*' before a value",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
}


@dataclass(frozen=True, slots=True)
class Expression:
    """One or several compiled texts.

    ``function`` takes a record, or a record and its origin when ``uses_origin``, or the parameters by position when the
    texts were compiled with any. It raises nothing but `EvaluationError`, changes nothing but what it assigns, and may
    be called from any thread. ``fields`` are the names read from the top of the record (``http`` for ``http.ms``).
    """

    text: str
    fields: frozenset[str]
    uses_origin: bool
    function: Callable[..., Any] = field(repr=False, compare=False)
    loop: Loop | None = field(default=None, repr=False, compare=False)
    """The same over many records without a call for each; None where ``function`` takes more than a record."""


class Code:
    """Writes the native function for one or several texts over the same record."""

    def __init__(self, typed: bool, parameters: Sequence[str] = (), exact: type[Any] | None = None) -> None:
        """Write for dicts or ``typed`` records, or for a record of the ``exact`` class only, by `finish_quick`."""
        self.typed = typed
        self.exact = exact
        self._known = Declared(exact) if typed and exact is not None else None
        self._constants: dict[str, Any] = {}
        self._values = [name for name in parameters if not name.endswith("()")]
        self._calls = [name.removesuffix("()") for name in parameters if name.endswith("()")]
        self._arguments = [name.removesuffix("()") for name in parameters]
        for name in self._arguments:
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"parameter {name!r} is not a name")
        self._reads: Counter[str] = Counter()
        self._places: list[Place] = []
        self._temporaries = 0
        self._uses_origin = False

    def add(self, text: str, target: str | None = None) -> ast.expr:
        """Check a text and return the code of its value."""
        source = Text(text, target)
        self._text = source
        try:
            return self._emit(source.tree)
        except RecursionError:
            source.refuse("nested too deeply", 0)

    def finish(self, text: str, steps: Iterable[Step], for_typed: Callable[..., Any] | None = None) -> Expression:
        """Return the function that takes these steps, and hands typed records to another one if there is one."""
        names = self._arguments or ["_record", "_origin"][: 1 + self._uses_origin]
        body = self._body(steps)
        report = Report(tuple(self._places), self.typed, bool(self._arguments))
        try:
            function, loop = native(names, body, report, for_typed)
        except (RecursionError, MemoryError):
            raise ExpressionError("nested too deeply") from None
        return Expression(text, frozenset(self._reads), self._uses_origin, function, loop)

    def finish_quick(self, steps: Iterable[Step]) -> Quick:
        """Return the loop that takes these steps with each record of the exact class."""
        return quick_loop(self._body(steps), {**self._constants, "_class": self.exact})

    def reading(self, name: str) -> ast.expr:
        """Return the code that reads a field of the record."""
        if self._known is not None and self._known.has(name):
            return _named(_fill(1, "_record.ATTRIBUTE", {}), name)
        if self.typed:
            template = "_getattr(_record, NAME, None)"
        else:
            template = "_record.get(NAME)" if self.exact is None else "_record[NAME]"
        return _fill(1, template, {"NAME": constant(name)})

    def name(self, value: Any) -> str:
        """Return a name by which the code of a quick loop reaches a value."""
        name = f"_c{len(self._constants)}"
        self._constants[name] = value
        return name

    def _body(self, steps: Iterable[Step]) -> list[ast.stmt]:
        body = [*self._preparations(), *(_fill_statement(template, parts) for template, parts in steps)]
        self._read_in_place(body)
        return body

    def _preparations(self) -> Iterator[ast.stmt]:
        if self.typed and not self._arguments and self.exact is None:
            yield _fill_statement("_record.__struct_fields__", {})  # a dict has no such thing and must not pass
        for name, count in self._reads.items():
            if count > 1:
                yield _fill_statement(f"{self._local(name)} = VALUE", {"VALUE": self.reading(name)})

    def _read_in_place(self, body: list[ast.stmt]) -> None:
        once = {self._local(name): self.reading(name) for name, count in self._reads.items() if count == 1}
        for parent in [parent for statement in body for parent in ast.walk(statement)]:
            for slot, value in ast.iter_fields(parent):
                if isinstance(value, list):
                    value[:] = [_instead(each, once) for each in cast(list[object], value)]
                else:
                    setattr(parent, slot, _instead(value, once))

    def _emit(self, tree: ast.expr) -> ast.expr:
        match tree:
            case ast.Constant():
                return self._emit_constant(tree)
            case ast.Name():
                return self._emit_name(tree)
            case ast.Attribute():
                return self._emit_attribute(tree)
            case ast.Subscript():
                return self._emit_subscript(tree)
            case ast.Call():
                return self._emit_call(tree)
            case ast.Compare():
                return self._emit_comparison(tree)
            case ast.BinOp():
                return self._emit_arithmetic(tree)
            case ast.BoolOp(op=op, values=values):
                return self._emit_all(tree, values, f" {_SYMBOLS[type(op)]} ")
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _SYMBOLS:
                return self._fill(tree, f"{_SYMBOLS[type(op)]}VALUE", VALUE=self._emit(operand))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                parts = {"TEST": self._emit(test), "BODY": self._emit(body), "ELSE": self._emit(orelse)}
                return self._fill(tree, "BODY if TEST else ELSE", **parts)
            case ast.List(elts=values):
                return self._emit_all(tree, values, ", ", "[{}]")
            case ast.Tuple(elts=values):
                return self._emit_all(tree, values, ", ", "({},)" if values else "()")
            case ast.Set(elts=values):
                return self._emit_all(tree, values, ", ", "{{{}}}")
            case ast.Dict():
                return self._emit_dict(tree)
            case _:
                self._refuse_kind(tree)

    def _refuse_kind(self, tree: ast.expr) -> NoReturn:
        named = _REFUSED.get(type(tree), "this operator")
        self._text.refuse(f"{named} is not allowed in an expression", tree)

    def _emit_constant(self, tree: ast.Constant) -> ast.expr:
        value = tree.value
        if value is not None and not isinstance(value, (bool, int, float, str)):
            self._text.refuse(f"a value like {shorten(ast.unparse(tree), 20)} is not allowed", tree)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            self._text.refuse(f"an integer of more than {MAX_BITS:,} bits", tree)
        if isinstance(value, str) and "__" in value:  # written with escapes
            self._text.refuse("'__' is not allowed", tree)
        return self._fill(tree, "VALUE", VALUE=constant(value))

    def _emit_name(self, tree: ast.Name) -> ast.expr:
        name = tree.id
        if name == "_record" and not self._arguments:
            return self._fill(tree, "_record")
        if name == "_origin" and not self._arguments:
            self._text.refuse("'_origin' is used as _origin.source, _origin.number or _origin.child", tree)
        if name in self._values:
            return self._fill(tree, name)
        if name in self._calls:
            self._text.refuse(f"'{name}' is a function here; write {name}()", tree)
        if name in _FOREIGN:
            self._text.refuse(f"write {_FOREIGN[name]}, or _record[{name!r}] for a field of this name", tree)
        self._check_plain(name, tree)
        if self._arguments:
            known = ", ".join([*self._values, *(f"{call}()" for call in self._calls)])
            self._text.refuse(f"unknown name '{name}'; known here: {known}", tree)
        return self._emit_field(tree, name)

    def _check_plain(self, name: str, tree: ast.expr) -> None:
        if name.startswith("_") or "__" in name:
            self._text.refuse(
                f"'{name}': names that begin with '_' are reserved; a field is reached by _record[...]", tree
            )

    def _emit_field(self, tree: ast.expr, name: str) -> ast.expr:
        self._reads[name] += 1
        return self._fill(tree, self._local(name))

    def _local(self, name: str) -> str:
        return f"_f{list(self._reads).index(name)}"

    def _emit_attribute(self, tree: ast.Attribute) -> ast.expr:
        match tree.value:
            case ast.Name(id="_origin") if not self._arguments:
                return self._emit_origin(tree)
            case _:
                self._check_plain(tree.attr, tree)
                return self._emit_key(tree, tree.value, tree.attr)

    def _emit_origin(self, tree: ast.Attribute) -> ast.expr:
        if tree.attr not in ("source", "number", "child"):
            self._text.refuse(f"'_origin' has source, number and child, not '{tree.attr}'", tree)
        self._uses_origin = True
        return self._fill(tree, f"_origin.{tree.attr}")

    def _emit_key(self, tree: ast.expr, base: ast.expr, key: str) -> ast.expr:
        if isinstance(base, ast.Name) and base.id == "_record" and not self._arguments:
            return self._emit_field(tree, key)
        inner = self._known.inner(base) if self._known is not None else None
        if inner is not None and inner.has(key):
            kind = self.name(inner.type)
            template = f"(_T.ATTRIBUTE if _type(_T := BASE) is {kind} else _field(_T, KEY))"
            value = self._fill(tree, template, BASE=self._emit(base), KEY=constant(key))
            _named(cast(ast.IfExp, value).body, key)
            return value
        if self.exact is not None and not self.typed:
            template = "(_T[KEY] if _type(_T := BASE) is _dict else _field(_T, KEY))"
        else:
            template = "(_T.get(KEY) if _type(_T := BASE) is _dict else _field(_T, KEY))"
        return self._fill(tree, template, BASE=self._emit(base), KEY=constant(key))

    def _emit_subscript(self, tree: ast.Subscript) -> ast.expr:
        match tree.slice:
            case ast.Slice(lower=lower, upper=upper, step=step):
                bounds = [self._emit(bound) if bound else constant(None) for bound in (lower, upper, step)]
                parts = dict(zip(("LOWER", "UPPER", "STEP"), bounds, strict=True))
                return self._fill(tree, "_slice(BASE, LOWER, UPPER, STEP)", BASE=self._emit(tree.value), **parts)
            case ast.Constant(value=str() as key) if "__" not in key:
                return self._emit_key(tree, tree.value, key)
            case key:
                return self._fill(tree, "_subscript(BASE, KEY)", BASE=self._emit(tree.value), KEY=self._emit(key))

    def _emit_call(self, tree: ast.Call) -> ast.expr:
        if tree.keywords:
            self._text.refuse("arguments by name are not allowed", tree.keywords[0])
        match tree.func:
            case ast.Name(id=name) if name in self._calls:
                self._check_count(tree, Known(name, len, 0, 0))
                return self._fill(tree, f"{name}()")
            case ast.Name(id="coalesce"):
                return self._emit_coalesce(tree)
            case ast.Name(id="int") if len(tree.args) == 1:
                # What a float is rounded to has no more than 1024 bits.
                template = "(_trunc(_T) if _type(_T := VALUE) is _float else _function_int(_T))"
                return self._fill(tree, template, VALUE=self._emit(tree.args[0]))
            case ast.Name(id=name):
                return self._emit_known(tree, tree.args, FUNCTIONS, "function", name)
            case ast.Attribute(value=base, attr=name):
                return self._emit_known(tree, [base, *tree.args], METHODS, "method", name)
            case _:
                self._text.refuse("only functions and methods known by name can be called", tree)

    def _emit_known(
        self, tree: ast.Call, values: list[ast.expr], table: Mapping[str, Known], kind: str, name: str
    ) -> ast.expr:
        if name not in table:
            from difflib import get_close_matches  # only a mistake needs it

            near = get_close_matches(name, table, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(table)}"
            self._text.refuse(f"unknown {kind} '{name}'; {hint}", tree.func)
        self._check_count(tree, table[name])
        return self._emit_all(tree, values, ", ", f"_{kind}_{name}({{}})")

    def _check_count(self, tree: ast.Call, known: Known) -> None:
        if known.least <= len(tree.args) <= known.most:
            return
        wanted = str(known.least) if known.least == known.most else f"{known.least} to {known.most}"
        wanted = f"at least {known.least}" if known.most == MANY else wanted
        self._text.refuse(f"{known.name}() takes {wanted} argument{'s' * (wanted != '1')}, not {len(tree.args)}", tree)

    def _emit_coalesce(self, tree: ast.Call) -> ast.expr:
        self._check_count(tree, Known("coalesce", len, 1, MANY))
        *values, result = [self._emit(value) for value in tree.args]
        for value in reversed(values):
            result = self._fill(tree, "(_T if (_T := VALUE) is not None else REST)", VALUE=value, REST=result)
        return result

    def _emit_comparison(self, tree: ast.Compare) -> ast.expr:
        for op, right in zip(tree.ops, tree.comparators, strict=True):
            if isinstance(op, ast.Is | ast.IsNot) and not (isinstance(right, ast.Constant) and right.value is None):
                self._text.refuse("'is' is for None only; use ==", right)
        left = self._emit(tree.left)
        if len(tree.ops) == 1:
            return self._emit_pair(tree, left, self._emit(tree.comparators[0]))
        return self._emit_chain(tree, left)

    def _emit_chain(self, tree: ast.Compare, left: ast.expr) -> ast.expr:
        # One comparison for each pair, so that an error knows its pair; a value in the middle is made once.
        pairs: list[ast.expr] = []
        before = tree.left
        for op, right in zip(tree.ops, tree.comparators, strict=True):
            pair = ast.copy_location(ast.Compare(before, [op], [right]), before)
            pair.end_lineno, pair.end_col_offset = right.end_lineno, right.end_col_offset
            name = self._temporary()
            value = self._fill(right, f"({name} := VALUE)", VALUE=self._emit(right))
            pairs.append(self._emit_pair(pair, left, value))
            before, left = right, self._fill(right, name)
        names = [f"P{index}" for index in range(len(pairs))]
        return self._fill(tree, " and ".join(names), **dict(zip(names, pairs, strict=True)))

    def _emit_pair(self, tree: ast.Compare, left: ast.expr, right: ast.expr) -> ast.expr:
        return self._fill(tree, f"LEFT {_SYMBOLS[type(tree.ops[0])]} RIGHT", LEFT=left, RIGHT=right)

    def _emit_arithmetic(self, tree: ast.BinOp) -> ast.expr:
        template = _ARITHMETIC.get(type(tree.op))
        if template is None:
            self._refuse_kind(tree)
        sides = [side.value for side in (tree.left, tree.right) if isinstance(side, ast.Constant)]
        if isinstance(tree.op, ast.Add) and any(isinstance(side, (int, float)) for side in sides):
            template = "LEFT + RIGHT"  # a number, which needs no bound
        elif isinstance(tree.op, ast.Mult) and any(isinstance(side, float) for side in sides):
            template = "LEFT * RIGHT"
        elif isinstance(tree.right, ast.Constant) and isinstance(tree.right.value, int):
            template = _BY_WHOLE.get(type(tree.op), template)
            most = constant(MAX_BITS - tree.right.value.bit_length())
            return self._fill(tree, template, LEFT=self._emit(tree.left), RIGHT=self._emit(tree.right), MOST=most)
        return self._fill(tree, template, LEFT=self._emit(tree.left), RIGHT=self._emit(tree.right))

    def _emit_dict(self, tree: ast.Dict) -> ast.expr:
        parts: dict[str, ast.expr] = {}
        for index, (key, value) in enumerate(zip(tree.keys, tree.values, strict=True)):
            if key is None:
                self._text.refuse("'**' before a value is not allowed in an expression", value)
            parts[f"K{index}"], parts[f"V{index}"] = self._emit(key), self._emit(value)
        pairs = ", ".join(f"K{index}: V{index}" for index in range(len(tree.keys)))
        return self._fill(tree, f"{{{pairs}}}", **parts)

    def _emit_all(self, tree: ast.expr, values: list[ast.expr], separator: str, around: str = "{}") -> ast.expr:
        parts = {f"P{index}": self._emit(value) for index, value in enumerate(values)}
        return self._fill(tree, around.format(separator.join(parts)), **parts)

    def _fill(self, tree: ast.expr, template: str, **parts: ast.expr) -> ast.expr:
        self._places.append(Place(self._text, tree))
        for name in ("_T", "_U"):
            if name in template:
                template = template.replace(name, self._temporary())
        return _fill(len(self._places), template, parts)

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"_t{self._temporaries}"


def constant(value: str | bool | int | float | None) -> ast.expr:
    """Return the code of a value that is written as it is."""
    return ast.Constant(value, lineno=1, end_lineno=1, col_offset=0, end_col_offset=0)


def local(name: str) -> ast.expr:
    """Return the code that reads a local variable."""
    return ast.Name(name, ast.Load(), lineno=1, end_lineno=1, col_offset=0, end_col_offset=0)


class _Filling(ast.NodeTransformer):
    """Puts parts in the place of the names of a template, and a line number on all that is the template's."""

    def __init__(self, line: int, parts: Mapping[str, ast.expr]) -> None:
        self._line = line
        self._parts = parts

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Name) and node.id in self._parts:
            return self._parts[node.id]
        if isinstance(node, ast.expr | ast.stmt | ast.keyword):
            node.lineno = node.end_lineno = self._line
            node.col_offset = node.end_col_offset = 0
        return self.generic_visit(node)


def _fill(line: int, template: str, parts: Mapping[str, ast.expr]) -> ast.expr:
    return cast(ast.expr, _Filling(line, parts).visit(ast.parse(template, mode="eval").body))


def _fill_statement(template: str, parts: Mapping[str, ast.expr]) -> ast.stmt:
    line = parts["VALUE"].lineno if "VALUE" in parts else 1
    return cast(ast.stmt, _Filling(line, parts).visit(ast.parse(template).body[0]))


def _named(value: ast.expr, attribute: str) -> ast.expr:
    # Within a template the parser would change some letters of a name, and we what looks like a temporary.
    cast(ast.Attribute, value).attr = attribute
    return value


def _instead(value: object, once: Mapping[str, ast.expr]) -> object:
    return once.get(value.id, value) if isinstance(value, ast.Name) else value
