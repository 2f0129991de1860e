"""The sink of kind `discard`: records end here."""

from pipeline.batch import Batch
from pipeline.stage import Parting, Sink, SinkContext, Writer

__all__ = ("Discard", "DiscardWriter")


class Discard(Sink, kw_only=True):
    """Counts records and lets go of them: for measuring, and for pipelines whose last function does the work."""

    def durable(self) -> bool:
        """Return False: there is nothing that could last."""
        return False

    def takes_text(self) -> bool:
        """Tell whether it is not made to look into records after all."""
        return type(self).open is Discard.open

    def parting(self, merge: bool) -> Parting | str:
        """Return that each worker lets go of its own."""
        return Parting.APART

    async def open(self, context: SinkContext) -> "DiscardWriter":
        """Return a writer that counts from 0."""
        return DiscardWriter()


class DiscardWriter(Writer):
    """Counts the records it is given, in ``count``."""

    def __init__(self) -> None:
        self.count = 0

    async def write(self, batch: Batch) -> None:
        """Count the records."""
        self.count += len(batch.records)

    async def close(self) -> None:
        """Do nothing."""
