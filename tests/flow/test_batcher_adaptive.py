"""Adaptive batches in whole pipelines, in virtual time: what reaches the law, and how many batches are under way."""

from collections.abc import Callable, Mapping
from itertools import chain, pairwise, repeat
from random import Random
from typing import Any

import pytest
from aiostream import pipe

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.control.adaptive import AdaptiveLaw
from pipeline.errors import Exit
from pipeline.stage import ChannelBounds, Retry, Writer
from pipeline.testing import ListSource, ManualClock
from pipeline.testing.lists import Wait
from pipeline.watch.report import Report
from stages import batchers, processors, sinks, sources
from tests.flow.driving import Cuts, Writes

pytestmark = pytest.mark.anyio

TARGET = 0.1
LONG = 1e6  # seconds of virtual time in which anything but a standstill is over
Seconds = Callable[[int], float]


def affine(records: int) -> float:
    """10 ms a batch and 0.1 ms a record."""
    return 0.01 + 0.0001 * records


class Bench:
    """Runs pipelines under a clock of its own, and notes what is said of their batches."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.batches: list[dict[str, Any]] = []
        """Of each batch that the law was shown: size, seconds, waited, limit."""
        self.uneven: list[dict[str, Any]] = []
        """The same of those that it was not shown, because they were tried again or held up."""
        self.resizes: list[dict[str, Any]] = []
        self.received: list[tuple[float, list[Any]]] = []
        """When a batch was taken by the first stage that takes time, and its records."""
        self.busy = self.most_busy = 0

    def work(self, seconds: Seconds, **keys: Any) -> processors.Call:
        """Return a processor that takes so long for a batch of so many records."""

        async def serve(records: list[Any]) -> list[Any]:
            self._begin(records)
            await self.clock.sleep(seconds(len(records)))
            self.busy -= 1
            return records

        return processors.Call(serve, batch=True, **keys)

    def sink(self, seconds: Seconds, **keys: Any) -> Writes:
        """Return a sink that takes so long for a batch of so many records."""
        bench = self

        class Slow(Writer):
            async def write(self, batch: Batch) -> None:
                bench._begin(batch.records)
                await bench.clock.sleep(seconds(len(batch.records)))
                bench.busy -= 1

        return Writes(writer=Slow(), **keys)

    async def run(self, source: Any, *stages: Any, seconds: float = LONG) -> Report:
        """Run for so many seconds of virtual time, or to the end."""
        pipeline = Pipeline("test", checkpoint="none", on_failure="skip") | source
        for stage in stages:
            pipeline = pipeline | stage
        supervisor = pipeline.supervisor(clock=self.clock, subscribers=[self._hear])
        if seconds < LONG:
            self.clock.call_at(self.clock.now() + seconds, supervisor.drain)
        return await self.clock.finish(supervisor.run())

    def limits(self) -> list[int]:
        return [batch["limit"] for batch in self.batches]

    def rate(self, since: float = 5.0, until: float = 15.0) -> float:
        """Return the records a second of the batches that ended in this time."""
        sizes: list[int] = [batch["size"] for batch in self.batches if since <= batch["at"] < until]
        return sum(sizes) / (until - since)

    def latencies(self) -> list[float]:
        """Return, for each batch, the seconds from the admission of its oldest record to its end."""
        return [batch["waited"] + batch["seconds"] for batch in self.batches]

    def late(self, target: float) -> float:
        """Return the share of batches that were over a target."""
        latencies = self.latencies()
        return sum(latency > target for latency in latencies) / len(latencies)

    def _begin(self, records: list[Any]) -> None:
        self.received.append((self.clock.now(), records))
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)

    def _hear(self, event: str, fields: Mapping[str, Any]) -> None:
        if event == "batch" and not fields["smooth"]:
            self.uneven.append({"at": self.clock.now(), **fields})
        elif event == "batch":
            self.batches.append({"at": self.clock.now(), **fields})
        elif event == "resize":
            self.resizes.append({"at": self.clock.now(), **fields})


def endless(**keys: Any) -> sources.Generate:
    return sources.Generate(**keys)


# --- what the law sees ------------------------------------------------------------------------------------------------


async def test_a_backlog_of_2000_records_upstream_changes_neither_the_limit_nor_the_throughput() -> None:
    seen: list[list[int]] = []
    written: list[int] = []
    for backlog in (1, 2000):
        bench = Bench()
        batcher = batchers.Adaptive(target_latency=TARGET, channel=ChannelBounds(records=backlog))
        report = await bench.run(endless(), batcher, bench.sink(affine), seconds=20)
        seen.append(bench.limits())
        written.append(report.account.written)
    # A drain ends the longer one with what waited.
    assert seen[0] == seen[1][: len(seen[0])]
    assert len(seen[0]) > 400
    # A record waits for one batch before it is in one that takes as long, and 5 % of the target are kept.
    assert seen[1][-1] == pytest.approx((TARGET * 0.95 / 2 - 0.01) / 0.0001, rel=0.02)
    assert written[1] >= 0.99 * written[0]


async def test_batches_that_are_late_go_whole_and_are_not_cut_smaller() -> None:
    bench = Bench()
    stalls = chain(repeat(0.0, 300), [1.0], repeat(0.0))
    source = endless(rate=1000.0)
    batcher = batchers.Adaptive(target_latency=TARGET)
    await bench.run(source, batcher, bench.sink(lambda n: affine(n) + next(stalls)), seconds=30)
    after = next(i for i, batch in enumerate(bench.batches) if batch["seconds"] > 1.0) + 1
    late = bench.batches[after]
    assert late["waited"] > TARGET
    # Nearly a second's records were gathered meanwhile, as far as the limit allowed.
    assert late["size"] == bench.batches[after - 2]["limit"]


async def test_a_limit_that_falls_leaves_no_remainder_of_the_batch_that_was_open() -> None:
    bench = Bench()
    slow = chain(repeat(1.0, 60), repeat(3.0))
    batcher = batchers.Adaptive(target_latency=TARGET)
    await bench.run(endless(), batcher, bench.sink(lambda n: affine(n) * next(slow)), seconds=12)
    sizes = [len(records) for _, records in bench.received]
    before = sizes[59]
    assert bench.limits()[60] < before
    # What was slow first, and what waited behind it when that was seen, go as they were opened; then it is felt.
    assert sizes[60:62] == [before, before]
    assert max(sizes[63:]) < before


async def test_batches_that_were_retried_or_halved_teach_the_law_nothing() -> None:
    bench = Bench()
    calls: list[int] = []

    async def fails_at_first(records: list[Any]) -> list[Any]:
        calls.append(len(records))
        await bench.clock.sleep(0.001)
        if len(calls) in (4, 5):
            raise ConnectionError("gone for a moment")
        if any(record["n"] == 100 for record in records):
            raise ValueError("n is 100")
        return records

    stage = processors.Call(fails_at_first, batch=True, retry=Retry(attempts=3, backoff="10s..10s"))
    report = await bench.run(
        endless(count=300), batchers.Adaptive(target_latency=TARGET, max_size=10), stage, discarding()
    )
    assert report.account.skipped == 1
    assert report.account.written == 299
    assert report.stages[1].batches - len(bench.batches) == 2
    # They are told all the same, with what became of them: plots would miss the worst moments.
    assert [batch["failed"] for batch in bench.uneven] == [0, 1]
    assert bench.uneven[0]["seconds"] > TARGET
    assert report.stages[1].over_target >= 1 / report.stages[1].batches
    assert report.stages[1].p99_latency > TARGET > report.stages[1].p50_latency > 0
    assert sum(report.stages[1].resizes.values()) >= 2
    # A wait of up to 10 s in between would show in the times.
    assert max(batch["seconds"] for batch in bench.batches) < 0.1
    assert max(bench.limits()) == 10


@pytest.mark.parametrize("stages", [1, 2])
async def test_batches_that_were_held_up_behind_a_retry_do_not_shrink_the_limit(stages: int) -> None:
    bench = Bench()
    calls = iter(range(1_000_000))

    async def often_retried(records: list[Any]) -> list[Any]:
        await bench.clock.sleep(affine(len(records)))
        if next(calls) % 9 == 8:
            raise ConnectionError("gone for a moment")
        return records

    retried = processors.Call(often_retried, batch=True, retry=Retry(attempts=9, backoff="1s..1s"))
    behind = bench.sink(affine) if stages == 2 else discarding()
    await bench.run(endless(), batchers.Adaptive(target_latency=TARGET), retried, behind, seconds=60)
    undisturbed = {1: 375, 2: 216}[stages]
    # Of the batches behind a retry, each waits half a second or so: five times the target, whatever its size.
    assert bench.limits()[-1] == pytest.approx(undisturbed, rel=0.02)


async def test_a_record_that_is_bad_by_itself_does_not_keep_its_batch_from_being_observed() -> None:
    bench = Bench()

    def checked(record: dict[str, int]) -> dict[str, int]:
        if record["n"] % 50 == 49:
            raise ValueError("every fiftieth")
        return record

    stage = processors.Call(checked)
    batcher = batchers.Adaptive(target_latency=TARGET)
    report = await bench.run(endless(count=60_000), batcher, stage, bench.sink(affine))
    assert report.account.skipped == 1200
    assert len(bench.batches) == report.stages[1].batches
    assert bench.limits()[-1] > 350


async def test_times_of_retried_batches_do_not_count_for_permits() -> None:
    bench = Bench()
    calls = iter(range(1_000_000))

    async def often_retried(records: list[Any]) -> list[Any]:
        await bench.clock.sleep(0.05)
        if next(calls) % 12 == 11:
            raise ConnectionError("gone for a moment")
        return records

    retried = processors.Call(often_retried, batch=True, retry=Retry(attempts=3, backoff="60s..60s"))
    await bench.run(endless(count=3000), batchers.Fixed(size=10), retried, bench.sink(lambda n: 0.05))
    between = sorted(later["at"] - batch["at"] for batch, later in pairwise(bench.batches))
    # Two stages of equal time: two batches in flight. Counting the waits, the processor would be all that is slow.
    assert between[len(between) // 4] == pytest.approx(0.05, abs=0.01)


async def test_what_queues_up_while_a_run_is_drained_teaches_the_law_nothing() -> None:
    bench = Bench()
    law = AdaptiveLaw(TARGET)
    before: list[int] = []
    bench.clock.call_at(10.0, lambda: before.append(law.limit))
    report = await bench.run(endless(), Cuts(make=lambda: law, name="cuts"), bench.sink(affine), seconds=10)
    assert report.outcome == "drained"
    # What is learned is saved, and a restart begins with it.
    assert [law.limit] == before


# --- permits ----------------------------------------------------------------------------------------------------------


async def driven(*stages: Callable[[Bench], Any], permits: int | None = None) -> Bench:
    """Run 20 s of batches of 100, all there is to take, through these stages."""
    bench = Bench()
    batcher = batchers.Adaptive(target_latency=10.0, min_size=100, max_size=100, max_in_flight=permits)
    await bench.run(endless(), batcher, *(stage(bench) for stage in stages), seconds=20)
    return bench


async def test_a_processor_and_a_sink_that_take_the_same_time_work_at_the_same_time() -> None:
    def processor(bench: Bench) -> Any:
        return bench.work(lambda n: 0.05)

    def sink(bench: Bench) -> Any:
        return bench.sink(lambda n: 0.05)

    alone = await driven(processor, sink, permits=1)
    bench = await driven(processor, sink)
    assert bench.rate() == pytest.approx(2 * alone.rate(), rel=0.02)
    assert bench.most_busy == 2
    # Two in flight, no more: a third would only queue and add 50 ms to each.
    assert bench.batches[-5]["seconds"] == pytest.approx(0.1, abs=0.005)


async def test_permits_go_by_the_slow_branch_of_a_fan_out() -> None:
    def processor(bench: Bench) -> Any:
        return bench.work(lambda n: 0.025)

    def branches(bench: Bench) -> Any:
        return [bench.sink(lambda n: 0.02, name="fast"), bench.sink(lambda n: 0.05, name="slow")]

    bench = await driven(processor, branches)
    # The slow sink never waits; with a permit for the fast one too, batches would only queue before it, 50 ms more.
    assert bench.rate() == pytest.approx(100 / 0.05, rel=0.02)
    assert bench.batches[-5]["seconds"] == pytest.approx(0.1, abs=0.005)


async def test_a_stage_that_works_record_by_record_gets_one_batch_at_a_time() -> None:
    async def call(record: Any) -> Any:
        await bench.clock.sleep(0.01)
        return record

    bench = Bench()
    stage = processors.Call(call, concurrency=4)
    batcher = batchers.Adaptive(target_latency=TARGET)
    await bench.run(endless(), batcher, stage, discarding(), seconds=20)
    # Four records at work at any time, of one batch: several would share the same four places and take longer each.
    assert bench.rate() > 0.85 * 400
    assert bench.batches[-5]["seconds"] == pytest.approx(TARGET / 2, rel=0.2)


@pytest.mark.parametrize("permits", [1, None])
async def test_every_batch_gives_its_permit_back_whatever_becomes_of_its_records(permits: int | None) -> None:
    def batcher(name: str) -> batchers.Adaptive:
        return batchers.Adaptive(name=name, target_latency=TARGET, max_in_flight=permits, max_size=7)

    def fails(record: dict[str, int]) -> dict[str, int]:
        if record["n"] % 3 == 0:
            raise ValueError("by three")
        return record

    def none_of(records: list[Any]) -> list[Any]:
        return []

    ways: list[tuple[Any, ...]] = [
        (processors.Filter(lambda record: False), discarding()),
        (processors.Call(fails, on_failure="collect"), discarding()),
        (processors.Call(none_of, batch=True, aggregate=True), discarding()),
        (pipe.chunks(9), discarding()),
        (processors.Call(fails), batcher("second"), discarding()),
        (batcher("second"), discarding()),
        ([discarding(name="a", when="n % 2 == 0"), discarding(name="b", when="n % 3 == 0")],),
        (processors.Call(fails), [discarding(name="a", when="n % 0 == 1"), discarding(name="b")]),
    ]
    for stages in ways:
        report = await Bench().run(endless(count=500), batcher("first"), *stages)
        assert report.outcome == "done"
        assert report.account.read == 500
        assert report.account.unsettled == 0


@pytest.mark.parametrize("failing", ["record", "batch", "unavailable", "aggregate", "when", "sink"])
async def test_a_record_that_stops_the_run_leaves_no_batcher_waiting_for_a_permit(failing: str) -> None:
    def fails(record: dict[str, int]) -> dict[str, int]:
        if record["n"] >= 150:
            raise ConnectionError("nobody there") if failing in ("unavailable", "aggregate") else ValueError("no")
        return record

    def same(record: dict[str, int]) -> dict[str, int]:
        return record

    def stops(record: dict[str, int]) -> bool:
        return bool(fails(record))

    def all_fail(records: list[dict[str, int]]) -> list[dict[str, int]]:
        return list(map(fails, records))

    def sink_fails(n: int) -> float:
        if len(bench.received) > 20 and failing == "sink":
            raise ValueError("no")
        return 0.001

    stages: dict[str, processors.Call] = {
        "record": processors.Call(fails, on_failure="stop"),
        "aggregate": processors.Call(all_fail, batch=True, aggregate=True, on_failure="stop"),
        "when": processors.Call(same),
        "sink": processors.Call(same),
    }
    stage = stages.get(failing) or processors.Call(all_fail, batch=True, on_failure="stop")
    bench = Bench()
    sink = bench.sink(sink_fails, on_failure="stop", when=stops if failing == "when" else None)
    batcher = batchers.Adaptive(target_latency=TARGET, max_in_flight=1, min_size=7, max_size=7)
    report = await bench.run(endless(count=10_000), batcher, stage, sink)
    assert report.exit_code == Exit.FAILED
    assert "no" in report.error
    assert 0 < report.account.written <= 150


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_drain_that_abandons_a_retry_leaves_no_batcher_waiting_for_its_permit(concurrency: int) -> None:
    bench = Bench()

    def gone(records: list[Any]) -> list[Any]:
        raise ConnectionError("nobody there")

    stage = processors.Call(gone, batch=True, concurrency=concurrency, retry=Retry(attempts=99, backoff="9s..9s"))
    batcher = batchers.Adaptive(target_latency=TARGET, max_in_flight=concurrency)
    report = await bench.run(endless(), batcher, stage, discarding(), seconds=5)
    assert report.outcome != "late"
    assert report.account.written == 0
    assert bench.clock.now() < 6


# --- when batches are cut ---------------------------------------------------------------------------------------------


async def test_a_free_permit_goes_to_the_key_whose_batch_has_the_least_time_left() -> None:
    bench = Bench()
    # While the first batch is at work, b comes before a; and c fills its batch of three, but came last.
    records = [{"k": "x"}, Wait(1), {"k": "b"}, Wait(1), {"k": "a"}, Wait(1), *repeat({"k": "c"}, 3)]
    batcher = batchers.Fixed(size=3, linger=0.5, by="k")
    await bench.run(ListSource(records), batcher, bench.sink(lambda n: 10.0))
    assert [batch[0]["k"] for _, batch in bench.received] == ["x", "b", "a", "c"]


async def test_a_batch_never_passes_its_bytes_and_a_larger_record_goes_alone() -> None:
    bench = Bench()
    law = batchers.Adaptive(target_latency=TARGET, max_bytes=5, min_size=1)
    source = ListSource(list(range(2000)), chunk=3)  # a byte a record
    await bench.run(source, law, bench.sink(lambda n: 0.001))
    sizes = [len(records) for _, records in bench.received]
    assert sum(sizes) == 2000
    assert max(sizes) == 5
    assert sizes[-20:-1] == [5] * 19

    bench = Bench()
    await bench.run(
        sources.Iterable(["x" * 10, "y" * 1000, "z" * 10]),
        batchers.Adaptive(target_latency=TARGET, max_bytes=100, min_size=3),
        bench.sink(lambda n: 0.001),
    )
    assert sum(len(records) for _, records in bench.received) == 3


async def test_a_batch_that_waits_for_more_is_sent_in_time_though_nothing_more_comes() -> None:
    bench = Bench()
    steady = [mark for n in range(2000) for mark in (n, Wait(0.001))]
    source = ListSource([*steady, 1, Wait(0.001), 2, Wait(50)], chunk=1)
    report = await bench.run(source, batchers.Adaptive(target_latency=TARGET), bench.sink(affine))
    assert report.account.written == 2002
    at, last = bench.received[-1]
    assert last[-1] == 2
    assert at < 2.5
    assert bench.batches[-1]["waited"] > TARGET / 2  # it did wait
    assert bench.latencies()[-1] <= TARGET
    assert report.stages[1].triggers["latency"] == 1


async def test_a_target_out_of_reach_is_said_once_and_shown_until_it_is_in_reach_again() -> None:
    bench = Bench()
    shown: dict[str, Any] = {}
    factor = chain(repeat(1.0, 60), repeat(0.1))
    law = AdaptiveLaw(TARGET, max_size=1000)
    bench.clock.call_at(8.0, lambda: shown.update(law.status()))
    await bench.run(endless(), Cuts(make=lambda: law), bench.sink(lambda n: 0.2 * next(factor)), seconds=15)
    said = [change["reason"] for change in bench.resizes if "feasible" in change["reason"]]
    assert said == ["infeasible", "feasible"]
    assert shown["infeasible"] == 1.0
    assert shown["limit"] == 1
    assert law.status()["infeasible"] == 0.0
    assert bench.limits()[-1] > 100


@pytest.mark.parametrize("ordered", [True, False])
async def test_slots_that_come_free_all_together_are_soon_taken_one_after_the_other(ordered: bool) -> None:
    bench = Bench()
    batcher = batchers.Adaptive(target_latency=0.05, max_size=500)
    slots = bench.work(lambda n: 0.01 + 0.00005 * n, concurrency=4, ordered=ordered)
    await bench.run(endless(), batcher, slots, discarding(), seconds=16)
    # Four at once with 500 records take 35 ms; ending together, the last would have waited as long before.
    assert bench.rate() == pytest.approx(4 * 500 / 0.035, rel=0.02)
    assert bench.late(0.05) <= 0.05


@pytest.mark.parametrize(("fixed", "noise", "rate"), [(0.01, 0.3, 29_500), (0.04, 0.1, 13_500)])
async def test_slots_that_noise_spreads_are_kept_busy_and_few_batches_are_late(
    fixed: float, noise: float, rate: float
) -> None:
    bench, random = Bench(), Random(1)
    batcher = batchers.Adaptive(target_latency=TARGET)
    slots = bench.work(lambda n: (fixed + 0.0001 * n) * random.lognormvariate(0.0, noise), concurrency=4, ordered=False)
    await bench.run(endless(), batcher, slots, discarding(), seconds=16)
    assert bench.rate() >= rate
    assert bench.late(TARGET) <= 0.05


@pytest.mark.parametrize("seconds", [0.01, 0.005])
async def test_five_records_a_second_hardly_wait(seconds: float) -> None:
    bench = Bench()
    batcher = batchers.Adaptive(target_latency=0.2)
    await bench.run(endless(rate=5.0), batcher, bench.sink(lambda n: seconds), seconds=100)
    latencies = sorted(bench.latencies())
    assert len(latencies) > 400
    assert latencies[-1] <= 0.2
    assert latencies[int(0.95 * len(latencies))] < 0.2 * 0.2


def discarding(**keys: Any) -> sinks.Discard:
    return sinks.Discard(**keys)
