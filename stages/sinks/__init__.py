"""Where records go."""

from stages.sinks.csv import Csv
from stages.sinks.jsonl import Jsonl
from stages.sinks.lines import Lines

__all__ = ("Csv", "Jsonl", "Lines")
