"""Where the built-in kinds are declared: what this package's own entry points say, without looking for them.

Python finds entry points by reading what every installed package says of itself, which takes longer than all that a
run needs of ours. A test holds this list to those entry points.
"""

from collections.abc import Mapping

__all__ = ("BUILT_IN",)

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "source": {
        "csv": "stages.sources.csv:Csv",
        "generate": "stages.sources.generate:Generate",
        "inlet": "stages.sources.inlet:Inlet",
        "iterable": "stages.sources.iterable:Iterable",
        "jsonl": "stages.sources.jsonl:Jsonl",
        "lines": "stages.sources.lines:Lines",
        "sqlite": "stages.sources.sqlite:Sqlite",
    },
    "batcher": {
        "adaptive": "stages.batchers.adaptive:Adaptive",
        "fixed": "stages.batchers.fixed:Fixed",
    },
    "processor": {
        "call": "stages.processors.call:Call",
        "dedupe": "stages.processors.dedupe:Dedupe",
        "explode": "stages.processors.explode:Explode",
        "filter": "stages.processors.filter:Filter",
        "map": "stages.processors.map:Map",
        "validate": "stages.processors.validate:Validate",
    },
    "sink": {
        "collect": "stages.sinks.collect:Collect",
        "csv": "stages.sinks.csv:Csv",
        "discard": "stages.sinks.discard:Discard",
        "jsonl": "stages.sinks.jsonl:Jsonl",
        "lines": "stages.sinks.lines:Lines",
        "sqlite": "stages.sinks.sqlite:Sqlite",
        "stdout": "stages.sinks.stdout:Stdout",
    },
}
"""Of each role, the kinds with ``module:Class`` of each."""
