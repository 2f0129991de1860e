"""What the opening of a state file made, to be taken away again when its run never begins."""

from contextlib import suppress
from pathlib import Path

from pipeline.settle.verify import beside

__all__ = ("Traces",)


class Traces:
    """Remembers what is missing of a state file's lock and folders; made before any of them is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._had_lock = beside(path, ".lock").exists()
        self._folders = [folder for folder in path.parents if not folder.exists()]
        self.made_state = False
        """Whether the file was made since: only who held the lock then can tell."""

    def remove_state(self) -> bool:
        """Remove the state file, if it was made; expects its lock to be held. Tell whether the lock may go too."""
        if self.made_state:
            with suppress(OSError):
                for name in (self._path, beside(self._path, "-wal"), beside(self._path, "-shm")):
                    name.unlink(missing_ok=True)
        return not self._had_lock and not self._path.exists()

    def remove_folders(self) -> None:
        """Remove the folders that were made and are empty."""
        with suppress(OSError):
            for folder in self._folders:
                folder.rmdir()
