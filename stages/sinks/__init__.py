"""Where records go."""

from typing import TYPE_CHECKING

from stages.lazily import lazily

if TYPE_CHECKING:
    from stages.sinks.collect import Collect
    from stages.sinks.csv import Csv
    from stages.sinks.discard import Discard
    from stages.sinks.jsonl import Jsonl
    from stages.sinks.lines import Lines
    from stages.sinks.sqlite import Sqlite
    from stages.sinks.stdout import Stdout

__all__ = ("Collect", "Csv", "Discard", "Jsonl", "Lines", "Sqlite", "Stdout")

__getattr__ = lazily(__name__, __all__)
