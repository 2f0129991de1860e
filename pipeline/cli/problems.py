"""What is wrong with a config, told so that a file of another kind, named by mistake, is not told line by line."""

import re
from collections.abc import Iterator

from pipeline.errors import ConfigError
from pipeline.watch.log import escape

__all__ = ("problem_lines",)

_SHOWN = 20
_LONGEST = 40
_ROLE = "source|batcher|processor|sink"
_QUOTED = re.compile(rf"\b((?:key|stage|{_ROLE}) ')(.+?)('(?=[;:,) ]|$))")
_KIND = re.compile(rf"(\((?:{_ROLE}) )(\S+?)(\))")


def problem_lines(error: ConfigError) -> Iterator[str]:
    """Yield the first problems, a line each, names of more than 40 characters cut; and how many there are more."""
    for problem in error.problems[:_SHOWN]:
        for line in str(problem).split("\n"):
            yield escape(_KIND.sub(_cut, _QUOTED.sub(_cut, line)))
    more = len(error.problems) - _SHOWN
    if more > 0:
        yield f"… and {more:,} more"


def _cut(found: re.Match[str]) -> str:
    name = found[2] if len(found[2]) <= _LONGEST else f"{found[2][: _LONGEST - 1]}…"
    return f"{found[1]}{name}{found[3]}"
