"""The clock of the machine; that of tests is tested in test_testing.py."""

import time

import anyio
import pytest

from pipeline.clock import Clock, SystemClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_it_reads_monotonic_and_wall_seconds() -> None:
    clock: Clock = SystemClock()
    low, wall = time.monotonic(), time.time()
    assert low <= clock.now() <= time.monotonic()
    assert wall <= clock.wall() <= time.time()


async def test_a_timer_calls_back_when_its_moment_has_come() -> None:
    clock = SystemClock()
    called = anyio.Event()
    due = clock.now() + 0.01
    clock.call_at(due, called.set)
    await called.wait()
    assert clock.now() >= due - 1e-3


async def test_a_timer_that_was_called_off_stays_silent() -> None:
    clock = SystemClock()
    called: list[str] = []
    last = anyio.Event()
    clock.call_at(clock.now(), lambda: called.append("off"))()
    clock.call_at(clock.now() - 5, lambda: called.append("on"))
    clock.call_at(clock.now() + 0.001, last.set)
    await last.wait()
    assert called == ["on"]


async def test_a_sleep_may_be_cancelled() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await SystemClock().sleep(3600)
    assert scope.cancelled_caught
