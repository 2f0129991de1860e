"""Where a synchronous function runs: in a thread, or in a process of its own."""

import copy
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_process
import anyio.to_thread

from pipeline.batch import Failed
from pipeline.cause import cause_of, keep_place
from pipeline.errors import Unavailable

__all__ = ("Executor", "in_process", "in_threads")

Executor = Callable[..., Any]
"""An asynchronous function: takes a function and its arguments, and returns what the function returns."""


def in_threads(limiter: anyio.CapacityLimiter) -> Executor:
    """Return an executor that runs as many functions at a time in threads as the limiter allows.

    A thread can't be stopped: a cancelled call returns at once and its thread runs on, still counted, so that attempts
    that hang never pile up.

    :raises Unavailable: when all threads are held by calls that were cancelled.
    """
    running: list[Any] = []  # appending and popping are atomic, adding to a number is not

    def counted(function: Callable[..., Any], args: tuple[Any, ...], told: dict[str, Any]) -> Any:
        running.append(function)
        try:
            return function(*args, **told)
        finally:
            running.pop()

    async def run(function: Callable[..., Any], *args: Any, **told: Any) -> Any:
        async with limiter:
            if len(running) >= limiter.total_tokens:
                none = f"none of {limiter.total_tokens:.0f} threads is free"
                raise Unavailable(f"{none}: calls that were given up still run in them")
            return await anyio.to_thread.run_sync(
                counted, function, args, told, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )

    return run


def in_process(limiter: anyio.CapacityLimiter) -> Executor:
    """Return an executor that runs as many functions at a time in processes as the limiter allows.

    A cancelled call ends its process.

    The function goes by its name; records and results by their values, typed ones as their types. What the function
    prints is lost.
    """

    # anyio hands over by pickle. Here that crosses no border of trust: both ends are this program, joined by a pipe
    # that nobody else has, and nothing of it is stored. JSON or msgpack would turn dates, decimals, tuples and typed
    # records into something else on the way, without a word.
    async def run(function: Callable[..., Any], *args: Any, **told: Any) -> Any:
        call = partial(_call_there, function, told)
        return await anyio.to_process.run_sync(call, *args, cancellable=True, limiter=limiter)

    return run


def _call_there(function: Callable[..., Any], told: dict[str, Any], *args: Any) -> Any:
    # A terminal sends Ctrl-C to all of its processes, a service manager its SIGTERM: only the engine is to decide.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        result = function(*args, **told)
    except Exception as error:
        raise _portable(error) from None
    except BaseException as error:  # it goes on as it is, without its traceback
        keep_place(error)
        raise
    if isinstance(result, list):
        return [_portable_result(each) for each in result]  # pyright: ignore[reportUnknownVariableType]
    return _portable_result(result)


def _portable_result(result: Any) -> Any:
    return Failed(result.record, _portable(result.error)) if isinstance(result, Failed) else result


def _portable(error: Exception) -> Exception:
    """Return the error, or one that says the same where its class can't be made again from what it keeps."""
    keep_place(error)
    try:
        # Made again the way the other side will make it.
        copy.copy(error)
    except Exception:
        return RuntimeError(cause_of(error))
    return error
