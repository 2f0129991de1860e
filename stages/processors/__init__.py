"""Built-in processors."""

from stages.processors.call import Call
from stages.processors.dedupe import Dedupe
from stages.processors.explode import Explode
from stages.processors.filter import Filter
from stages.processors.map import Map
from stages.processors.validate import Validate

__all__ = ("Call", "Dedupe", "Explode", "Filter", "Map", "Validate")
