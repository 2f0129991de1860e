"""The files of a run in order, and the one at hand; the list of an earlier run comes first."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import ConfigError, StateError
from stages.sources.paths import check_file, find_files, is_pipe

__all__ = ("FileList",)


class FileList:
    """Files found for paths and globs. Blocking, for threads.

    ``saved`` is the cursor, while the file at hand is still the one it belongs to. ``files`` is never changed in place:
    cursors hold it. ``passed`` counts the bytes of the files before the one at hand.

    :raises ConfigError: when there is none, or one that can't be read; not if they are followed, for one may come.
    :raises StateError: when one that was not read yet is gone.
    """

    def __init__(self, paths: Sequence[str], cursor: Mapping[str, Any] | None, follow: bool) -> None:
        self._paths = paths
        self._follow = follow
        self.index = 0
        self.files = find_files(paths)
        self.piped = any(map(is_pipe, self.files))
        self.saved = None if self.piped else cursor
        if self.saved is not None:
            self._go_on(self.saved)
        elif not self._follow:
            self._check(self.files)
        self._sizes = [os.path.getsize(path) if os.path.isfile(path) else 0 for path in self.files]
        self.passed = sum(self._sizes[: self.index])

    def at_hand(self) -> str | None:
        """Return the file that is to be read now, None behind the last."""
        if self.saved is not None and self.saved["done"] and not os.path.exists(self.files[self.index]):
            self.advance()
        return self.files[self.index] if self.index < len(self.files) else None

    def advance(self, read: int = 0) -> None:
        """Go on to the next file; this one had so many bytes."""
        self.index += 1
        self.passed += read
        self.saved = None

    def is_last(self) -> bool:
        """Tell whether no file is known behind the one at hand."""
        return self.index >= len(self.files) - 1

    def find_newer(self) -> bool:
        """Look for files that came; tell whether there is one behind the file at hand."""
        came = [path for path in find_files(self._paths) if path not in self.files]
        if came:
            self.files = [*self.files, *came]
        return not self.is_last()

    def total(self) -> int | None:
        """Return the bytes of all files, None when they may grow."""
        return None if self._follow or self.piped else sum(self._sizes)

    def _go_on(self, saved: Mapping[str, Any]) -> None:
        old: list[str] = saved["files"]
        self.index = int(saved["index"])
        new = [path for path in self.files if path not in old]
        self.files = [*old, *new]
        if self._follow:
            return
        for path in old[self.index + 1 :]:
            if not os.path.exists(path):
                raise StateError(f"{path!r} is gone, and was not read yet; put it back, or use --fresh")
        self._check(new, old)

    def _check(self, files: Sequence[str], others: Sequence[str] = ()) -> None:
        if not files and not others:
            raise ConfigError(f"no file matches {', '.join(map(repr, self._paths))}")
        for path in files:
            check_file(path)
