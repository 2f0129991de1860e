"""Tests of the `call` processor."""

import functools
import os
import re
import threading
from datetime import date
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest

from pipeline.batch import Failed, Many
from pipeline.cause import cause_of, place_of
from pipeline.errors import ConfigError, Unavailable
from pipeline.flow.attempts import as_error
from pipeline.stage import Each, EachAsync, Whole
from stages.processors import Call
from tests.stages.processors import called
from tests.stages.processors.opened import context, each, opened

pytestmark = pytest.mark.anyio


def double(record: int, by: int = 2) -> int:
    return record * by


async def test_a_synchronous_function_is_called_as_it_is() -> None:
    async with opened(Call(double), Each) as work:
        assert work.function is double
        assert work.gives == "any"
        assert work.changes
        assert not work.context


async def test_arguments_are_handed_over_by_name() -> None:
    assert await each(Call(double, arguments={"by": 3}), 2) == [6]


async def test_what_a_function_wants_to_be_told_is_seen_from_its_parameters() -> None:
    def told(record: Any, context: Any) -> Any: ...
    def untold(context: Any, /) -> Any: ...
    def batch(records: Any, *, keys: Any, context: Any = None) -> Any: ...

    async with opened(Call(told), Each) as work:
        assert work.context
    async with opened(Call(untold), Each) as work:
        assert not work.context
    async with opened(Call(functools.partial(told)), Each) as work:
        assert work.context
    async with opened(Call(batch, batch=True), Whole) as whole:
        assert whole.context
        assert whole.keys
    async with opened(Call(double, batch=True, aggregate=True), Whole) as whole:
        assert not whole.context
        assert not whole.keys
        assert whole.aggregate


class AsyncCallable:
    async def __call__(self, record: Any) -> Any:
        return record

    async def method(self, record: Any) -> Any:
        return record


@pytest.mark.parametrize(
    "function",
    [
        called.waits,
        functools.partial(called.waits),
        functools.partial(functools.partial(called.waits)),
        AsyncCallable(),
        AsyncCallable().method,
        AsyncCallable,
    ],
)
async def test_asynchronous_functions_of_every_make_are_known(function: Any) -> None:
    async with opened(Call(function), EachAsync) as work:
        assert await work.function(1) == 1
    async with opened(Call(function, batch=True), Whole) as whole:
        assert await whole.function([1]) == [1]


class Pool:
    """Counts how often it is entered and left."""

    log: ClassVar[list[str]] = []

    def __init__(self, size: int) -> None:
        self.size = size

    async def __aenter__(self) -> "Pool":
        self.log.append("entered")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.log.append("left")

    async def __call__(self, record: int) -> int:
        return record + self.size


async def test_an_async_context_manager_class_is_entered_once_and_left_at_close() -> None:
    Pool.log = []
    async with opened(Call(Pool, arguments={"size": 5}), EachAsync) as work:
        assert [await work.function(record) for record in (1, 2)] == [6, 7]
        assert Pool.log == ["entered"]

    assert Pool.log == ["entered", "left"]


async def test_a_context_manager_class_may_give_another_object_to_call() -> None:
    class Session:
        def __enter__(self) -> Any:
            return double

        def __exit__(self, *error: object) -> None: ...

    assert await each(Call(Session), 4) == [8]


async def test_what_is_entered_and_can_not_be_called_is_left_again() -> None:
    class Silent(Pool):
        async def __aenter__(self) -> Any:
            return 5

    Pool.log = []
    with pytest.raises(ConfigError, match=r"Silent gives a int, which can't be called"):
        await Call(Silent, arguments={"size": 1}).open(context())
    assert Pool.log == ["left"]


async def test_a_class_that_is_only_called_is_made_once_and_any_other_class_makes_records() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def __call__(self, record: Any) -> int:
            self.count += 1
            return self.count

    assert await each(Call(Counter), "a", "b") == [1, 2]
    assert await each(Call(int), "12") == [12]


async def test_a_thread_runs_the_function_beside_the_loop() -> None:
    def where(record: Any) -> Any:
        return record, threading.get_ident()

    async with opened(Call(where, executor="thread"), EachAsync) as work:
        record, thread = await work.function(1)

    assert record == 1
    assert thread != threading.get_ident()


async def test_no_more_threads_run_than_the_concurrency_says() -> None:
    running = threading.Semaphore(2)
    both = threading.Barrier(2, timeout=5)

    def meet(record: Any) -> Any:
        assert running.acquire(blocking=False), "a third one ran"
        both.wait()
        running.release()
        return record

    async with (
        opened(Call(meet, executor="thread", concurrency=2), EachAsync) as work,
        anyio.create_task_group() as group,
    ):
        for record in range(6):
            group.start_soon(_run, work, record)


async def test_calls_that_were_given_up_hold_their_threads_until_they_return() -> None:
    release = threading.Event()
    started = threading.Event()

    def hang(record: Any) -> Any:
        started.set()
        assert release.wait(timeout=5)
        return record

    async with opened(Call(hang, executor="thread"), EachAsync) as work:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_run, work, 1)
                while not started.is_set():
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            with pytest.raises(Unavailable, match="none of 1 threads"):
                await work.function(2)
        finally:
            release.set()


async def test_a_process_of_its_own_runs_the_function_and_keeps_what_records_are() -> None:
    record = {"day": date(2024, 1, 2), "pair": (1, 2), "typed": called.Typed(date(2024, 1, 3))}
    async with opened(Call(called.somewhere, executor="process"), EachAsync) as work:
        where = await work.function(record)

    assert where.process != os.getpid()
    assert where.result == record


async def test_results_of_every_sort_come_back_from_a_process() -> None:
    spec = Call(called.results, batch=True, executor="process", arguments={"factor": 2})
    async with opened(spec, Whole) as work:
        nothing, many, odd, bad = await work.function([1, 2, 3, 4], keys=["k1", "k2", "k3", "k4"])

    assert nothing is None
    assert type(many) is Many
    assert many == (4, "k2")
    assert isinstance(odd, Failed)
    assert (odd.record, str(odd.error)) == (3, "Peculiar: 7: odd")
    assert isinstance(bad, Failed)
    assert isinstance(bad.error, ValueError)


async def test_errors_come_back_from_a_process_with_their_types_where_these_can_be_made_again() -> None:
    async with opened(Call(called.fail, executor="process"), EachAsync) as work:
        with pytest.raises(ValueError, match="bad"):
            await work.function("value")
        with pytest.raises(Unavailable) as away:
            await work.function("away")
        with pytest.raises(RuntimeError, match="Peculiar: 7: odd"):
            await work.function("peculiar")

    assert away.value.retry_after == 1.5


async def test_an_attempt_to_end_the_program_comes_back_from_a_process_with_its_line() -> None:
    async with opened(Call(called.leave, executor="process"), EachAsync) as work:
        with pytest.raises(SystemExit, match="enough") as raised:
            await work.function(1)

    assert re.search(r"called\.py:\d+$", place_of(raised.value))
    assert cause_of(as_error(raised.value)).endswith(f"({place_of(raised.value)})")


async def test_a_process_that_dies_fails_its_call_and_not_the_next_one() -> None:
    async with opened(Call(called.end, executor="process"), EachAsync) as work:
        with pytest.raises(anyio.BrokenWorkerProcess):
            await work.function(1)
    async with opened(Call(called.somewhere, executor="process"), EachAsync) as work:
        assert (await work.function(1)).result == 1


async def _run(work: EachAsync, record: Any) -> None:
    await work.function(record)


def _local() -> Any:
    def local(record: Any) -> Any:
        return record

    return local


def _generated(record: Any) -> Any:
    yield record


@pytest.mark.parametrize(
    ("spec", "key", "text"),
    [
        (Call(double, aggregate=True), "aggregate", "batch"),
        (Call(double, arguments={"factor": 3}), "arguments", "factor"),
        (Call(double, arguments={"context": 3}), "arguments", "engine"),
        (Call(Pool), "arguments", "size"),
        (Call(_generated), "function", "generator"),
        (Call(double, timeout=1.0), "timeout", "thread"),
        (Call(called.waits, executor="thread"), "executor", "asynchronous"),
        (Call(AsyncCallable, executor="thread"), "executor", "asynchronous"),
        (Call(_local(), executor="process"), "executor", "module"),
    ],
)
def test_keys_that_do_not_fit_the_function_are_named(spec: Call, key: str, text: str) -> None:
    problems = dict(spec.problems())

    assert key in problems
    assert text in problems[key]


def test_a_timeout_is_fine_where_an_attempt_can_be_given_up() -> None:
    assert list(Call(double, timeout=1.0, executor="thread").problems()) == []
    assert list(Call(double, timeout=1.0, executor="process").problems()) == []
    assert list(Call(called.waits, timeout=1.0).problems()) == []
    assert list(Call(Pool, timeout=1.0, arguments={"size": 1}).problems()) == []
    assert list(Call("enrich:add_weather", timeout=1.0).problems()) == []


async def test_a_name_that_nobody_resolved_is_an_error_and_not_a_call() -> None:
    with pytest.raises(ConfigError, match="enrich:add_weather"):
        await Call("enrich:add_weather").open(context())


async def test_a_timeout_is_refused_at_the_latest_when_entering_tells_that_the_function_is_synchronous() -> None:
    class Session:
        def __enter__(self) -> Any:
            return double

        def __exit__(self, *error: object) -> None: ...

    with pytest.raises(ConfigError, match="timeout"):
        await Call(Session, timeout=1.0).open(context())
