"""The example of the README's section on embedding, behind a real server."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from pipeline import LockedError, Pipeline
from pipeline.service import Service
from stages import sinks, sources

pytestmark = pytest.mark.anyio

README = Path(__file__).parents[2] / "README.md"


def example() -> dict[str, Any]:
    """Return what the example defines."""
    section = README.read_text(encoding="utf-8").partition("## Embed it\n")[2].partition("\n## ")[0]
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if "lifespan" in block]
    defined: dict[str, Any] = {}
    exec(code, defined)  # what the README says must run as it stands
    return defined


class Server(uvicorn.Server):
    """A server that leaves the signals of the tests alone."""

    @asynccontextmanager
    async def _serving(self) -> AsyncGenerator[int]:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve())
            while not self.started:
                assert not serving.done(), "the application did not start"
                await asyncio.sleep(0.01)
            yield self.servers[0].sockets[0].getsockname()[1]
            self.should_exit = True


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[int]:
    """Serve an application; gives the port."""
    server = Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    async with server._serving() as port:  # pyright: ignore[reportPrivateUsage]
        yield port


async def post(port: int, path: str, body: Any) -> tuple[int, Any]:
    """Send one request and return status and what the body holds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + payload)
    answer = await reader.read()
    writer.close()
    status, _, text = answer.partition(b"\r\n\r\n")
    return int(status.split()[1]), json.loads(text) if text else None


async def test_a_service_starts_and_stops_with_the_application() -> None:
    defined = example()
    async with served(defined["app"]) as port:
        results = await asyncio.gather(*(post(port, "/score", {"amount": n}) for n in range(40)))
        assert results == [(200, {"amount": n, "score": n / 1000}) for n in range(40)]
        assert (await post(port, "/score", {"amount": "much"}))[0] == 422


async def resume_soon(service: Service) -> None:
    await asyncio.sleep(0.1)
    await service.resume()


async def test_requests_that_are_open_when_the_application_stops_are_answered() -> None:
    defined = example()
    async with served(defined["app"]) as port:
        service: Service = defined["app"].state.scoring
        await service.pause()
        tasks = [asyncio.ensure_future(post(port, "/score", {"amount": n})) for n in range(50)]
        while service.counts().open < 50:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        resuming = asyncio.ensure_future(resume_soon(service))
    await resuming
    assert [(await task)[0] for task in tasks] == [200] * 50


async def test_an_application_whose_pipeline_cannot_start_says_why(tmp_path: Path) -> None:
    defined = example()
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(reply: dict[str, Any]) -> None:
        told.append(reply)

    locked = Pipeline("scoring", checkpoint={"path": str(tmp_path / "x.db")}) | sources.Inlet() | sinks.Discard()
    defined["scoring"] = locked
    async with locked.service():
        with pytest.raises(LockedError):
            await defined["app"]({"type": "lifespan", "state": {}}, receive, send)
    assert [reply["type"] for reply in told] == ["lifespan.startup.failed"]
    assert "in use by process" in told[0]["message"]
