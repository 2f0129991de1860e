"""Built-in processors."""

from stages.processors.call import Call
from stages.processors.filter import Filter
from stages.processors.map import Map

__all__ = ("Call", "Filter", "Map")
