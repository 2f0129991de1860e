"""Which expressions can't give NaN or infinity, told by their form alone."""

import ast

from pipeline.expression.text import ExpressionError, Text, operands

__all__ = ("may_be_nonfinite",)

_WHOLE = frozenset({"int", "len", "find", "count"})
_FINITE = frozenset({"all", "any", "bool", "lower", "str", "upper"})
_MAY_BE_ANY = frozenset({"get"})
_OF_WHOLES = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)


def may_be_nonfinite(text: str) -> bool:
    """Tell whether the value of an expression may be, or hold, NaN or infinity; False only where that is certain."""
    try:
        return not _is_finite(Text(text).tree)
    except ExpressionError:
        return True


def _is_finite(tree: ast.expr) -> bool:
    match tree:
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.BoolOp(values=values):
            return all(map(_is_finite, values))
        case ast.IfExp(body=body, orelse=orelse):
            return _is_finite(body) and _is_finite(orelse)
        case ast.Constant(value=value):
            return not isinstance(value, float | complex)
        case ast.Call(func=ast.Name(id=name)) if name in _FINITE:
            return True
        case ast.Call(func=ast.Attribute(attr=name)):  # a text's method, and what it makes of a text
            return name not in _MAY_BE_ANY
        case ast.BinOp(op=ast.Div()):  # what is too large for a float is an error
            return all(map(_is_whole, operands(tree)))
        case _:
            return _is_whole(tree)


def _is_whole(tree: ast.expr) -> bool:
    """Tell whether the value, if there is one, is an integer."""
    match tree:
        case ast.Constant(value=value):
            return isinstance(value, int)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _WHOLE
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_whole(operand)
        case ast.BinOp(op=op, left=left, right=right):
            return isinstance(op, _OF_WHOLES) and _is_whole(left) and _is_whole(right)
        case _:
            return False
