"""Pipelines in virtual time: what they do, and when, to the millisecond and without waiting."""

from dataclasses import dataclass
from typing import Any

from pipeline import Pipeline, Report
from pipeline.stage import Batcher
from pipeline.testing import ListSource, ManualClock
from stages import processors, sinks

__all__ = ("Call", "Service", "run", "serve")


@dataclass(frozen=True, slots=True)
class Call:
    """A batch as a service saw it: when it came, the records it held, when it was done."""

    began: float
    records: list[Any]
    ended: float

    @property
    def size(self) -> int:
        """Records of the batch."""
        return len(self.records)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Service:
    """A batch function that takes ``fixed + each * size`` seconds, and remembers its calls in the order they ended."""

    def __init__(self, clock: ManualClock, fixed: float = 0.0, each: float = 0.0) -> None:
        self.calls: list[Call] = []
        self.at_once = 0
        """The most calls that were under way at a time."""
        self._clock = clock
        self._fixed = fixed
        self._each = each
        self._under_way = 0

    async def take(self, records: list[Any]) -> list[Any]:
        """Do the work of a batch."""
        began = self._clock.now()
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            await self._clock.sleep(self._fixed + self._each * len(records))
        finally:
            self._under_way -= 1
        self.calls.append(Call(began, records, self._clock.now()))
        return records

    @property
    def sizes(self) -> list[int]:
        """The sizes of the batches."""
        return [call.size for call in self.calls]


async def run(pipeline: Pipeline, clock: ManualClock) -> Report:
    """Run a pipeline to its end in virtual time, and return the report, whatever the end was."""
    return await clock.finish(pipeline.supervisor(clock=clock).run())


async def serve(
    records: list[Any], batcher: Batcher, *, fixed: float = 0.0, each: float = 0.0, concurrency: int = 1
) -> Service:
    """Run records, with `Wait` among them, through a batcher into a service; it must end well."""
    clock = ManualClock()
    service = Service(clock, fixed, each)
    pipeline = (
        Pipeline("served")
        | ListSource(records=records, chunk=500)
        | batcher
        | processors.Call(service.take, batch=True, concurrency=concurrency)
        | sinks.Discard()
    )
    report = await run(pipeline, clock)
    assert report.outcome == "done", report.error
    return service
