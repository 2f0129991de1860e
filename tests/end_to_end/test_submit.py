"""Callers of a service under load: the throughput of the best fixed size, within the target, and nothing mixed up."""

import asyncio
from functools import partial

import pytest

from pipeline import RecordFailed
from pipeline.testing import ManualClock
from stages import batchers
from tests.benchmarks.submit import POISON, TARGET, Load, alone, load, pipeline_with

pytestmark = pytest.mark.anyio


async def in_virtual_time(batcher: batchers.Adaptive | batchers.Fixed, seconds: float) -> Load:
    clock = ManualClock()

    async def measured() -> Load:
        async with pipeline_with(batcher, clock).service(clock=clock) as service:
            return await load(service, 1000, 1.0, seconds, clock)

    return await clock.finish(measured())


async def test_a_thousand_callers_get_the_throughput_of_the_best_fixed_size_within_the_target() -> None:
    best = max([(await in_virtual_time(batchers.Fixed(size=size), 1.0)).throughput for size in (300, 500, 700)])
    seen = await in_virtual_time(batchers.Adaptive(target_latency=TARGET), 2.0)
    assert seen.quantile(0.95) <= TARGET
    assert seen.throughput >= 0.8 * best
    assert seen.mixed_up == 0


async def test_one_caller_alone_waits_for_nobody() -> None:
    clock = ManualClock()

    async def measured() -> list[float]:
        async with pipeline_with(batchers.Adaptive(target_latency=TARGET), clock).service(clock=clock) as service:
            before = await alone(service, clock)
            await load(service, 200, 0.0, 0.5, clock)
            return before + await alone(service, clock)

    assert max(await clock.finish(measured())) < 0.03


async def test_under_load_a_poisoned_record_fails_only_its_own_caller() -> None:
    clock = ManualClock()

    async def measured() -> Load:
        async with pipeline_with(batchers.Adaptive(target_latency=TARGET), clock).service(clock=clock) as service:
            return await load(service, 300, 0.0, 4.0, clock, poison=True)

    seen = await clock.finish(measured())
    assert seen.failed
    assert all(n % POISON == 0 for n in seen.failed)
    assert seen.mixed_up == 0


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_in_real_time_too() -> None:
    best = 0.0
    for size in (300, 400, 500, 600):
        async with pipeline_with(batchers.Fixed(size=size, linger=0.02)).service() as service:
            best = max(best, (await load(service, 1000, 1.0, 5.0)).throughput)
    async with pipeline_with(batchers.Adaptive(target_latency=TARGET)).service() as service:
        seen = await load(service, 1000, 2.0, 20.0)
        waits = await alone(service)
        results = await asyncio.gather(
            *map(partial(service.submit), ({"n": n, "poison": n == 5} for n in range(50))), return_exceptions=True
        )
    assert seen.quantile(0.95) <= TARGET
    assert seen.throughput >= 0.8 * best
    assert seen.mixed_up == 0
    assert seen.processor / len(seen.calls) < 60e-6
    assert sorted(waits)[len(waits) // 2] < 0.03
    assert [n for n, result in enumerate(results) if isinstance(result, RecordFailed)] == [5]
