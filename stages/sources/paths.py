"""Which files a list of paths and globs stands for."""

import glob
import os
import stat
from collections.abc import Sequence

from pipeline.errors import ConfigError

__all__ = ("check_file", "find_files", "is_pipe")


def is_pipe(path: str) -> bool:
    """Tell whether a path is standard input, a FIFO or a device: read once, as it comes."""
    try:
        mode = os.stat(path).st_mode if path != "-" else stat.S_IFIFO
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def find_files(paths: Sequence[str]) -> list[str]:
    """Return the files of a list of paths and globs, each once, in order; a path that is no glob as it stands."""
    found: dict[str, None] = {}
    for path in paths:
        if glob.has_magic(path) and not os.path.exists(path):
            found.update(dict.fromkeys(sorted(p for p in glob.glob(path, recursive=True) if not os.path.isdir(p))))
        else:
            found[path] = None
    return list(found)


def check_file(path: str) -> None:
    """Check that a file can be read, before anything is begun.

    :raises ConfigError: says why it can't.
    """
    if path == "-":
        return
    if os.path.isdir(path):
        raise ConfigError(f"{path!r} is a directory; {os.path.join(path, '*')!r} stands for the files in it")
    if not os.path.exists(path):
        raise ConfigError(f"no file matches {path!r}")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"can't open {path!r}: Permission denied")
