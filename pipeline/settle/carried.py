"""What a run's cuts hold of sources and sinks that have no part in the run: the same as the cut before."""

from msgspec import structs

from pipeline.settle.cut import Cut

__all__ = ("carried",)


def carried(cut: Cut, before: Cut | None) -> Cut:
    """Return the cut with the points that only the one before has: they stay where they were."""
    if before is None:
        return cut
    return structs.replace(
        cut,
        sources={**before.sources, **cut.sources},
        sinks={**before.sinks, **cut.sinks},
    )
