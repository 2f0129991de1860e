"""The batcher of kind `fixed`: batches of one size."""

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from pipeline.control.fixed import FixedLaw
from pipeline.control.law import Law
from pipeline.stage import Batcher, Duration, key
from stages.batchers.quantities import bytes_of, seconds_of

__all__ = ("Fixed",)


class Fixed(Batcher, kw_only=True):
    """Cuts a batch at a size, or when its oldest record has waited long enough, whichever is first."""

    size: Annotated[int, Meta(ge=1), key("Records in a batch.")] = 500
    linger: Annotated[Duration, key("Longest wait of a batch's oldest record for others.")] = 1.0

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return which quantity is out of its range."""
        if seconds_of(self.linger) < 0:
            yield "linger", f"must not be negative, it is {self.linger}"
        if self.max_bytes is not None and bytes_of(self.max_bytes) < 1:
            yield "max_bytes", f"must be at least 1 byte, it is {self.max_bytes}"

    def law(self) -> Law:
        """Return a law that keeps the size."""
        return FixedLaw(
            self.size, seconds_of(self.linger), None if self.max_bytes is None else bytes_of(self.max_bytes)
        )
