"""The batcher of kind `adaptive`: batches that size themselves against a latency target."""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.control.adaptive import AdaptiveLaw
from pipeline.control.law import Law
from pipeline.stage import Batcher, Duration, key
from stages.batchers.quantities import bytes_of, seconds_of

__all__ = ("Adaptive",)


class Adaptive(Batcher, kw_only=True):
    """Cuts the largest batches that stay within a target latency, and finds out how large these are by itself.

    Sizes and waits follow from the times of the batches before: a slower sink gets smaller ones. What was learned is
    in the checkpoint.
    """

    target_latency: Annotated[Duration, key("The latency to stay within.")]
    latency_of: Annotated[
        Literal["record", "batch"],
        key("What is held to the target: record, from its admission to a batch to the end; batch, its service only."),
    ] = "record"
    percentile: Annotated[
        Annotated[float, Meta(ge=50, le=99)] | Literal["mean"],
        key("Share of the latencies that is to be within the target, 50 to 99, or their mean."),
    ] = 95.0
    margin: Annotated[
        float, Meta(ge=0, lt=1), key("Share of the target kept in reserve; 0.02 where the fixed cost is most of it.")
    ] = 0.05
    min_size: Annotated[int, Meta(ge=1), key("Records in the smallest batch; sizes begin here.")] = 1
    max_size: Annotated[int, Meta(ge=1), key("Records in the largest batch; the same as min_size fixes it.")] = 10_000
    linger: Annotated[
        Duration | None, key("Longest wait of a batch's oldest record; what the target leaves when left out, 0: none.")
    ] = None
    max_in_flight: Annotated[
        int | None, Meta(ge=1), key("Batches behind the batcher at a time; measured when left out, more only queue.")
    ] = None

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return which quantity is out of its range."""
        if not 0 < seconds_of(self.target_latency) < math.inf:
            yield "target_latency", f"must be more than 0, it is {self.target_latency}"
        if self.min_size > self.max_size:
            yield "min_size", f"must be at most max_size ({self.max_size}), it is {self.min_size}"
        if self.linger is not None and seconds_of(self.linger) < 0:
            yield "linger", f"must not be negative, it is {self.linger}"
        if self.max_bytes is not None and bytes_of(self.max_bytes) < 1:
            yield "max_bytes", f"must be at least 1 byte, it is {self.max_bytes}"

    def law(self) -> Law:
        """Return a law that has learned nothing yet."""
        return AdaptiveLaw(
            seconds_of(self.target_latency),
            self.latency_of,
            self.percentile,
            self.margin,
            self.min_size,
            self.max_size,
            None if self.max_bytes is None else bytes_of(self.max_bytes),
            None if self.linger is None else seconds_of(self.linger),
            self.max_in_flight,
        )
