"""Standard output: it belongs to the sink that writes to it, and what functions print goes to standard error."""

import io
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO, cast

__all__ = ("printing_aside", "standard_output")

_given_away: list[TextIO] = []
"""What standard output was before each `printing_aside`, the first one first."""


def standard_output() -> TextIO:
    """Return standard output, also while what is printed goes elsewhere."""
    return _given_away[0] if _given_away else sys.stdout


@contextmanager
def printing_aside() -> Generator[None, None, None]:
    """Let what is printed go to standard error."""
    _given_away.append(sys.stdout)
    sys.stdout = cast(TextIO, _Aside())
    try:
        yield
    finally:
        sys.stdout = _given_away.pop()


class _Aside(io.TextIOBase):
    """Writes to whatever is standard error at the moment: a live picture may have taken its place."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)
