"""The page that `run --report` writes."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.watch.history import History
from pipeline.watch.report import Report

__all__ = ("check_report", "write_report")


def check_report(path: str) -> None:
    """See to it that a page can be written there, before the run and not after it.

    :raises ConfigError: when it can't.
    """
    folder = Path(path).absolute().parent
    if Path(path).is_dir():
        raise ConfigError(f"--report {path}: this is a directory; name a file in it")
    if not folder.is_dir():
        raise ConfigError(f"--report {path}: there is no directory {folder}; make it, or name another file")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--report {path}: the directory {folder} can't be written to; name another file")


def write_report(path: str, report: Report, history: History, mask: Callable[[str], str]) -> str:
    """Write the page, whole or not at all; return why that failed, empty when it did not."""
    from pipeline.watch.page import page

    text = page(report, history, mask)
    temporary = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", dir=Path(path).absolute().parent, delete=False
        ) as file:
            temporary = file.name
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        return f"the report could not be written: {error}"
    return ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
