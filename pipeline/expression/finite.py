"""Which expressions can't give NaN or infinity, told by their form alone."""

import ast

from pipeline.expression.text import ExpressionError, Text

__all__ = ("may_be_nonfinite",)


def may_be_nonfinite(text: str) -> bool:
    """Tell whether the value of an expression may be, or hold, NaN or infinity; False only where that is certain."""
    try:
        return not _is_finite(Text(text).tree)
    except ExpressionError:
        return True


def _is_finite(tree: ast.expr) -> bool:
    if isinstance(tree, ast.Compare) or (isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)):
        return True
    if isinstance(tree, ast.BoolOp):
        return all(map(_is_finite, tree.values))
    if isinstance(tree, ast.IfExp):
        return _is_finite(tree.body) and _is_finite(tree.orelse)
    return isinstance(tree, ast.Constant) and not isinstance(tree.value, float | complex)
