"""The gate before a stage's calls: who probes an open breaker, and what becomes of a probe that is called off."""

from contextlib import nullcontext

import anyio
import pytest

from pipeline.flow.gate import Gate
from pipeline.stage import CircuitBreaker, RateLimit
from pipeline.testing import ManualClock, settle
from tests.flow.driving import Works, run_of

pytestmark = pytest.mark.anyio


async def test_a_probe_that_is_called_off_while_it_waits_for_the_rate_leaves_the_next_call_to_probe() -> None:
    clock = ManualClock()
    spec = Works(
        None, name="call", rate_limit=RateLimit(rate=0.01), circuit_breaker=CircuitBreaker(failures=1, reset=10.0)
    )
    gate = Gate(run_of(spec, clock=clock), "call", spec)
    assert gate.breaker is not None
    assert not await gate.enter(nullcontext)
    gate.failed(False, ConnectionError("down"))
    probes: list[bool] = []

    async def enter() -> None:
        probes.append(await gate.enter(nullcontext))

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        await settle()
        await clock.advance(11.0)
        assert gate.breaker.state == "half_open"
        group.cancel_scope.cancel()
    assert gate.breaker.state == "open"
    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        await settle()
        await clock.advance(200.0)
        group.cancel_scope.cancel()
    assert probes == [True]
