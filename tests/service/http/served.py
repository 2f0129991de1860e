"""A server in the loop of the test, and a client that sends what it is told to."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from pipeline.plan.load import load
from pipeline.service.http.access import Access
from pipeline.service.http.host import Host
from pipeline.service.http.hosted import Hosted
from pipeline.service.http.limits import Limits
from pipeline.service.http.server import bind, serve

__all__ = ("COPY", "ENDLESS", "Reply", "Served", "eventually", "served")

COPY = """\
name: copy
checkpoint: {{path: {folder}/copy.db}}
stages:
  - source: jsonl
    with: {{path: {folder}/in.jsonl}}
  - batcher: fixed
    with: {{size: 10}}
  - sink: jsonl
    with: {{path: {folder}/out.jsonl}}
"""
"""Copies ``in.jsonl`` to ``out.jsonl`` and ends."""

ENDLESS = """\
name: endless
checkpoint: {{path: {folder}/endless.db}}
stages:
  - source: generate
    with: {{rate: 200/s, record: {{id: n}}}}
  - batcher: adaptive
    with: {{target_latency: 100ms, max_size: 50}}
  - processor: validate
    with: {{schema: {{id: {{type: int, le: 20}}}}}}
    on_failure: dead_letter
  - sink: discard
"""
"""Runs until it is stopped; all but the first records are dead letters."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Served:
    """A server that listens."""

    host: Host
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        return await self.send(method, path, headers)

    async def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        encoded = json.dumps({} if body is None else body).encode()
        return await self.send("POST", path, {"Content-Type": "application/json", **(headers or {})}, encoded)

    async def send(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Send a request on a connection of its own; headers that are empty are left out."""
        given = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if body or method not in ("GET", "HEAD"):
            given.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value)]
        return await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def raw(self, sent: bytes) -> Reply:
        """Send bytes as they are and return the first answer."""
        reader, writer = await self.connect()
        try:
            writer.write(sent)
            return await answer_of(reader)
        finally:
            writer.close()


async def answer_of(reader: asyncio.StreamReader) -> Reply:
    """Read the answer to a request on a connection that ends with it."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Reply(int(status.split()[1]), headers, body)


@asynccontextmanager
async def served(
    folder: Path, *configs: str, limits: Limits | None = None, token: str = ""
) -> AsyncGenerator[Served, None]:
    """Serve configs, each a text with ``{folder}`` in it, and drain them at the end."""
    host = Host(limits)
    paths = [folder / f"{index}.yaml" for index, _ in enumerate(configs)]
    for path, text in zip(paths, configs, strict=True):
        path.write_text(text.format(folder=folder))
    host.add([_hosted(host, path) for path in paths])
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        ready = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(serve, host, Access.to("127.0.0.1", port, token), listening, ready.set)
            await ready.wait()
            await eventually(lambda: all(each.state not in ("stopped", "starting") for each in host.pipelines.values()))
            yield Served(host, port)
            host.drain()


def _hosted(host: Host, path: Path) -> Hosted:
    return Hosted(load(path), lambda: load(path), host.tell)


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something is so."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of tests
            await anyio.sleep(0.01)
