"""The expression language of the YAML: a checked subset of Python, compiled to native functions."""

from pipeline.expression.code import Expression
from pipeline.expression.compile import (
    compile_assignments,
    compile_expression,
    compile_predicate,
    compile_record,
)
from pipeline.expression.report import EvaluationError
from pipeline.expression.text import ExpressionError

__all__ = (
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "compile_assignments",
    "compile_expression",
    "compile_predicate",
    "compile_record",
)
