"""Sources: where records come from."""

from stages.sources.csv import Csv
from stages.sources.jsonl import Jsonl
from stages.sources.lines import Lines

__all__ = ("Csv", "Jsonl", "Lines")
