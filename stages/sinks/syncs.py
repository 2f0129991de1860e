"""What must reach the disk before a checkpoint may name it."""

import os

import anyio.to_thread

from pipeline.errors import StorageError
from stages.sinks.append_file import AppendFile

__all__ = ("Syncs",)


_MOST_TRIES = 10


class Syncs:
    """The files that have changed since the last sync, and the folders in which names have."""

    def __init__(self) -> None:
        self._files: dict[AppendFile, None] = {}
        self._folders: dict[str, None] = {}
        self._failed: StorageError | None = None

    def file(self, file: AppendFile) -> None:
        """Take note that a file has changed."""
        self._files[file] = None

    def folder(self, folder: str) -> None:
        """Take note that a name in a folder has changed."""
        self._folders[folder or "."] = None

    def make_folder(self, folder: str) -> None:
        """Make a folder and those above it that are missing.

        The hidden folder of a run by workers is made by any of them, and taken away whenever it is empty.
        """
        for left in reversed(range(_MOST_TRIES)):
            try:
                return self._make_folder(folder)
            except FileNotFoundError:
                if not left:
                    raise

    def _make_folder(self, folder: str) -> None:
        missing: list[str] = []
        while folder and not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
            self.folder(os.path.dirname(path))

    async def run(self) -> None:
        """Make all of it durable, off the loop.

        :raises StorageError: when a sync fails or is broken off, and ever after: what is on the disk is not known then.
        """
        if self._failed is not None:
            raise self._failed
        files, self._files = list(self._files), {}
        folders, self._folders = list(self._folders), {}
        self._failed = StorageError("a sync of files was broken off; run again to resume")
        descriptors: list[tuple[str, int]] = []
        try:
            # Descriptors of its own: a file may be released, or finished, while the sync runs.
            descriptors.extend((file.path, file.duplicate()) for file in files)
            await anyio.to_thread.run_sync(_sync, descriptors, folders)
        except OSError as error:
            self._failed = StorageError(
                f"can't make {error.filename} durable: {error.strerror}; what is on the disk is not known, "
                "repair it and run again to resume from the last checkpoint"
            )
            raise self._failed from error
        self._failed = None


def _sync(descriptors: list[tuple[str, int]], folders: list[str]) -> None:
    failed: OSError | None = None
    for path, descriptor in descriptors:
        failed = failed or _fsync(path, descriptor)
        os.close(descriptor)
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        failed = failed or _fsync(folder, descriptor)
        os.close(descriptor)
    if failed is not None:
        raise failed


def _fsync(path: str, descriptor: int) -> OSError | None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = path
        return error
    return None
