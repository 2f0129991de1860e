"""The sink of kind `collect`: records stay in memory, for whoever started the run."""

from typing import Annotated, Any

from msgspec import Meta

from pipeline.batch import Batch
from pipeline.errors import StageError
from pipeline.stage import Sink, SinkContext, Writer, key

__all__ = ("Collect", "CollectWriter")


class Collect(Sink, kw_only=True):
    """Keeps the records; in Python they are `report.records`."""

    limit: Annotated[int, Meta(ge=1), key("Records kept at most; more of them end the run.")] = 1_000_000

    def durable(self) -> bool:
        """Return False: what is in memory ends with the process."""
        return False

    async def open(self, context: SinkContext) -> "CollectWriter":
        """Return a writer that holds nothing yet."""
        return CollectWriter(context.name, self.limit)


class CollectWriter(Writer):
    """Appends what it is given to ``records``, in the order of writing."""

    def __init__(self, name: str, limit: int) -> None:
        self.records: list[Any] = []
        self._name = name
        self._limit = limit

    async def write(self, batch: Batch) -> None:
        """Keep the records of a batch.

        :raises StageError: when that would be more than the limit; then none of the batch is kept.
        """
        if len(self.records) + len(batch.records) > self._limit:
            text = f"stage {self._name!r} (sink collect): over {self._limit} records to keep in memory"
            raise StageError(f"{text}; raise `limit`, or write them with a sink like jsonl or sqlite")
        self.records.extend(batch.records)

    async def close(self) -> None:
        """Do nothing: the records outlive the run."""
