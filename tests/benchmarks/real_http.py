"""A small HTTP server in a process of its own, whose answers take a time a call and a time a record, and its client."""

import asyncio
import json
import random
import sys
from types import TracebackType
from typing import Any

__all__ = ("Client",)

_FIXED = 0.005
_PER_RECORD = 0.00005
_DEVIATION = 0.1


class Client:
    """Posts lists of records to a server of its own; ``factor`` makes that one slower."""

    def __init__(self) -> None:
        self.factor = 1.0
        self._server: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Client":
        command = (sys.executable, "-m", "tests.benchmarks.real_http")
        self._server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._server.stdout is not None
        port = int(await self._server.stdout.readline())
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        if self._server is not None:
            self._server.terminate()
            await self._server.wait()

    async def post(self, records: list[Any]) -> list[Any]:
        """Post records and return what comes back for them."""
        body = json.dumps(records).encode()
        self._writer.write(b"POST /%f HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (self.factor, len(body), body))
        await self._writer.drain()
        _, answer = await _read(self._reader)
        returned: list[Any] = json.loads(answer)
        return returned


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the first line and the body of what comes next."""
    first, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    length = next(int(line.split(":")[1]) for line in headers if line.lower().startswith("content-length"))
    return first, await reader.readexactly(length)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    noise = random.Random(1)
    try:
        while True:
            first, body = await _read(reader)
            factor = float(first.split()[1].lstrip("/"))
            count = len(json.loads(body))
            seconds = (_FIXED + _PER_RECORD * count) * noise.lognormvariate(-(_DEVIATION**2) / 2, _DEVIATION)
            await asyncio.sleep(factor * seconds)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, limit=2**24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
