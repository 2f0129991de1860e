"""Batches of one size: the law of the `fixed` batcher."""

from collections.abc import Mapping

from pipeline.control.law import Change, Observation

__all__ = ("FixedLaw",)


class FixedLaw:
    """Closes a batch at `size` records, `max_bytes` bytes or `linger` seconds after its oldest record, whichever is
    first; learns nothing.

    :raises ValueError: if a number is out of its range.
    """

    def __init__(self, size: int, linger: float = 1.0, max_bytes: int | None = None) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if not linger >= 0:
            raise ValueError(f"linger must not be negative, it is {linger}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.limit = size
        self.max_bytes = max_bytes
        self.permits: int | None = None
        self._linger = linger

    def linger(self, size: int) -> float:
        """Return the configured seconds, whatever the size."""
        return self._linger

    def expects(self, remaining: float) -> bool:
        """Say yes: a fixed batch waits for as long as it was told to."""
        return True

    def arrived(self, count: int, now: float) -> None:
        """Do nothing."""

    def observe(self, seen: Observation) -> list[Change]:
        """Return nothing: the size stays."""
        return []

    def learned(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def restore(self, learned: Mapping[str, object]) -> bool:
        """Return False: there is nothing to go on from."""
        return False

    def status(self) -> dict[str, float]:
        """Return the limit."""
        return {"limit": self.limit}
