"""Where records go."""

from stages.sinks.jsonl import Jsonl
from stages.sinks.lines import Lines

__all__ = ("Jsonl", "Lines")
