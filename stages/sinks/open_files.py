"""A bound on how many files are open at a time."""

from contextlib import suppress

from stages.sinks.append_file import AppendFile

__all__ = ("OpenFiles",)

LIMIT = 100


class OpenFiles:
    """The files that hold a descriptor, the least recently used first; one more lets go of that."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._files: dict[AppendFile, None] = {}

    def __len__(self) -> int:
        return len(self._files)

    def use(self, file: AppendFile) -> None:
        """Open a file to append to.

        :raises OSError: when it can't be opened, or another can't take the frame that waits for it.
        :raises StateError: when it is not what it was.
        """
        if file in self._files and file.is_open:
            if len(self._files) > 1:
                del self._files[file]
                self._files[file] = None
            return
        while len(self._files) >= self._limit:
            oldest = next(iter(self._files))
            oldest.end_frame()
            self.drop(oldest)
        file.open()
        self._files[file] = None

    def drop(self, file: AppendFile) -> None:
        """Let go of a file."""
        self._files.pop(file, None)
        file.release()

    def close(self) -> None:
        """Let go of all files. What waits for a frame is written, as nobody will be told whether it failed."""
        for file in list(self._files):
            with suppress(OSError):  # it is behind the last checkpoint, and comes again
                file.end_frame()
            self.drop(file)
