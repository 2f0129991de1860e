"""The expression language of the YAML: a checked subset of Python, compiled to native functions."""

from pipeline.expression.code import Expression
from pipeline.expression.compile import (
    Rebuilt,
    compile_assignments,
    compile_expression,
    compile_predicate,
    compile_record,
)
from pipeline.expression.finite import may_be_nonfinite
from pipeline.expression.loops import Loop
from pipeline.expression.reads import paths_read
from pipeline.expression.report import EvaluationError
from pipeline.expression.text import ExpressionError

__all__ = (
    "EvaluationError",
    "Expression",
    "ExpressionError",
    "Loop",
    "Rebuilt",
    "compile_assignments",
    "compile_expression",
    "compile_predicate",
    "compile_record",
    "may_be_nonfinite",
    "paths_read",
)
