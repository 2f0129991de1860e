"""Adds up what the partitions say of themselves: one status, one set of stages."""

from collections.abc import Iterable, Iterator

from pipeline.plan.topology import Topology
from pipeline.watch.report import SourceStatus, StageStatus, Status

__all__ = ("Tally",)


class Tally:
    """What all partitions of one run did, stage by stage; those under way as they said last."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._ended: dict[str, StageStatus] = {}
        self._ended_seconds = 0.0
        self._running: dict[int, Status] = {}

    def progress(self, number: int, status: Status) -> None:
        """Take note of a partition that is under way."""
        self._running[number] = status

    def forget(self, number: int) -> None:
        """Take note that a partition's run broke off: what was not saved of it comes again."""
        self._running.pop(number, None)

    def end(self, number: int, stages: Iterable[StageStatus], seconds: float) -> None:
        """Take note of what a partition's run did."""
        self._running.pop(number, None)
        for stage in stages:
            before = self._ended.get(stage.name)
            self._ended[stage.name] = stage if before is None else _sum(before, self._ended_seconds, stage, seconds)
        self._ended_seconds += seconds

    def stages(self) -> list[StageStatus]:
        """Return all stages: counts are sums, times and shares are means over the workers' time."""
        found = dict(self._ended)
        seconds = self._ended_seconds
        for status in self._running.values():
            for stage in status.stages:
                before = found.get(stage.name)
                found[stage.name] = stage if before is None else _sum(before, seconds, stage, status.seconds)
            seconds += status.seconds
        return [found[name] for name in self._topology.stages if name in found]

    def source(self, done: int, total: int, unsettled: int, number: int) -> SourceStatus:
        """Return how far the source has come, given the sizes of the partitions that are done and of all."""
        here = [source for status in self._running.values() for source in status.sources]
        counted = [source for source in here if source.total is not None]
        unit = counted[0].unit if counted else "rows" if here else "bytes"
        done += sum(source.done or 0 for source in here)
        name = self._topology.sources[0].name
        return SourceStatus(name, number, unsettled, min(done, total), total, unit)

    def bytes_held(self) -> int:
        """Return the bytes that all workers hold."""
        return sum(status.bytes_held for status in self._running.values())

    def loop_lag(self) -> float:
        """Return how late the latest loop of a worker is."""
        return max((status.loop_lag for status in self._running.values()), default=0.0)

    def fills(self) -> dict[str, float]:
        """Return how full the channels into each stage are, on average."""
        found: dict[str, list[float]] = {}
        for name, fill in self._channels():
            found.setdefault(name, []).append(fill)
        return {name: sum(fills) / len(fills) for name, fills in found.items()}

    def busy(self) -> dict[str, float]:
        """Return the seconds for which each stage has worked, all workers together."""
        seconds = {name: stage.busy * self._ended_seconds for name, stage in self._ended.items()}
        for status in self._running.values():
            for stage in status.stages:
                seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.busy * status.seconds
        return seconds

    def _channels(self) -> Iterator[tuple[str, float]]:
        for status in self._running.values():
            yield from ((channel.stage, channel.fill) for channel in status.channels)


def _sum(one: StageStatus, one_seconds: float, other: StageStatus, other_seconds: float) -> StageStatus:
    seconds = max(one_seconds + other_seconds, 1e-9)
    batches = max(one.batches + other.batches, 1)

    def over_time(name: str) -> float:
        total: float = getattr(one, name) * one_seconds + getattr(other, name) * other_seconds
        return total / seconds

    return StageStatus(
        name=one.name,
        role=one.role,
        kind=one.kind,
        state=other.state,
        records_in=one.records_in + other.records_in,
        records_out=one.records_out + other.records_out,
        filtered=one.filtered + other.filtered,
        batches=one.batches + other.batches,
        retries=one.retries + other.retries,
        failed=_added(one.failed, other.failed),
        last_batch=other.last_batch or one.last_batch,
        in_flight=one.in_flight + other.in_flight,
        limit=other.limit or one.limit,
        mean_seconds=(one.mean_seconds * one.batches + other.mean_seconds * other.batches) / batches,
        p95_seconds=max(one.p95_seconds, other.p95_seconds),
        busy=over_time("busy"),
        waiting_in=over_time("waiting_in"),
        waiting_out=over_time("waiting_out"),
        triggers=_added(one.triggers, other.triggers),
    )


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *other)}
