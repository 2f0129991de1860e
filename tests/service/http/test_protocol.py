"""Connections are bounded: in number, and in the time that a request may take to arrive."""

import asyncio
import time
from pathlib import Path

import anyio
import pytest

from pipeline.service.http.limits import Limits
from tests.service.http.served import ENDLESS, Served, answer_of, served

pytestmark = pytest.mark.anyio


async def test_a_request_that_comes_too_slowly_is_ended_with_408(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(request_seconds=0.7)) as server:
        head = f"POST /api/pipelines/endless/pause HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        body = f"{head}Content-Type: application/json\r\nContent-Length: 90\r\n\r\n"
        for sent in (b"", b"GET /hea", head.encode(), body.encode()):
            began = time.monotonic()
            reader, writer = await server.connect()
            writer.write(sent)
            reply = await answer_of(reader)
            assert (reply.status, reply.json["code"]) == (408, "too_slow")
            assert 0.5 < time.monotonic() - began < 5
            assert await reader.read() == b""
            writer.close()


async def test_a_byte_now_and_then_buys_no_time(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(request_seconds=0.5)) as server:
        reader, writer = await server.connect()
        statuses: list[int] = []

        async def listen() -> None:
            statuses.append((await answer_of(reader)).status)

        with anyio.fail_after(3):
            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"x" * 100:
                    if statuses:
                        break
                    writer.write(bytes([byte]))
                    await anyio.sleep(0.05)
        assert statuses == [408]
        writer.close()


async def test_200_slow_connections_leave_the_others_alone(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(burst_seconds=0.3)) as server:
        slow = [await server.connect() for _ in range(200)]
        for index, (_, writer) in enumerate(slow):
            writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: " if index % 2 else b"")
        await anyio.sleep(0.1)
        took = [await _seconds_of_health(server) for _ in range(20)]
        await anyio.sleep(0.4)
        took += [await _seconds_of_health(server) for _ in range(20)]
        # What else this machine does may delay any single one.
        assert sorted(took)[35] < 0.2
        dropped = 0
        for reader, _ in slow:
            with anyio.move_on_after(0.001):
                await reader.readexactly(12)
                dropped += 1
        assert dropped >= 100
        for _, writer in slow:
            writer.close()


async def test_connections_beyond_the_bound_are_told_so(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(connections=10)) as server:
        held = [await server.connect() for _ in range(10)]
        reader, writer = await server.connect()
        assert (await answer_of(reader)).status == 503
        writer.close()
        for _, each in held:
            each.close()
        with anyio.fail_after(5):
            while (await server.get("/healthz")).status != 200:  # noqa: ASYNC110 - it is asked what it does
                await anyio.sleep(0.05)


async def test_a_connection_serves_one_request_after_the_other(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(request_seconds=0.3)) as server:
        reader, writer = await server.connect()
        request = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        for pause in (0.0, 0.5, 0.1):
            await anyio.sleep(pause)
            writer.write(request)
            assert (await answer_of(reader)).status == 200
        writer.write(request * 3)
        assert [(await answer_of(reader)).status for _ in range(3)] == [200, 200, 200]
        writer.close()


async def _seconds_of_health(server: Served) -> float:
    began = asyncio.get_running_loop().time()
    assert (await server.get("/healthz")).status == 200
    return asyncio.get_running_loop().time() - began
