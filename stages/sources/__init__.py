"""Sources: where records come from."""

from typing import TYPE_CHECKING

from stages.lazily import lazily

if TYPE_CHECKING:
    from stages.sources.csv import Csv
    from stages.sources.generate import Generate
    from stages.sources.inlet import Inlet
    from stages.sources.iterable import Iterable
    from stages.sources.jsonl import Jsonl
    from stages.sources.lines import Lines
    from stages.sources.sqlite import Sqlite

__all__ = ("Csv", "Generate", "Inlet", "Iterable", "Jsonl", "Lines", "Sqlite")

__getattr__ = lazily(__name__, __all__)
