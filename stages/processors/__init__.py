"""Built-in processors."""

from typing import TYPE_CHECKING

from stages.lazily import lazily

if TYPE_CHECKING:
    from stages.processors.call import Call
    from stages.processors.dedupe import Dedupe
    from stages.processors.explode import Explode
    from stages.processors.filter import Filter
    from stages.processors.map import Map
    from stages.processors.validate import Validate

__all__ = ("Call", "Dedupe", "Explode", "Filter", "Map", "Validate")

__getattr__ = lazily(__name__, __all__)
