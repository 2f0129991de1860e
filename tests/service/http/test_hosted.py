"""Several pipelines in one process: each starts, fails and ends by itself, and is told of as it happens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.service.http.limits import Limits
from pipeline.service.http.stream import Stream
from tests.service.http.served import COPY, ENDLESS, Served, eventually, served

pytestmark = pytest.mark.anyio

FAILS = """\
name: fails
checkpoint: {{path: {folder}/fails.db}}
stages:
  - source: jsonl
    with: {{path: {folder}/in.jsonl}}
  - processor: validate
    with: {{schema: {{id: int}}}}
  - sink: jsonl
    with: {{path: {folder}/fails.jsonl}}
"""
BROKEN = """\
name: broken
checkpoint: {{path: {folder}}}
stages:
  - source: jsonl
    with: {{path: {folder}/in.jsonl}}
  - sink: discard
"""


async def test_one_that_fails_leaves_the_others_alone_and_starts_again_when_mended(tmp_path: Path) -> None:
    tmp_path.joinpath("in.jsonl").write_text('{"id": 1}\n{"id": "two"}\n')
    async with served(tmp_path, FAILS, BROKEN, ENDLESS) as server:
        await eventually(lambda: server.host["fails"].state == "failed")
        view = (await server.get("/api/pipelines/fails")).json
        assert "expected int" in view["error"]
        assert view["alerts"][0]["level"] == "error"
        assert [stage["state"] for stage in view["stages"] if stage["name"] == "validate"] == ["failed"]
        assert server.host["broken"].state == "failed"
        assert server.host["endless"].state == "running"
        ready = await server.get("/readyz")
        assert (ready.status, ready.json["parts"]["fails"]["ready"]) == (503, False)
        tmp_path.joinpath("in.jsonl").write_text('{"id": 1}\n{"id": 22222}\n')
        assert (await server.post("/api/pipelines/fails/start")).status == 200
        await eventually(lambda: server.host["fails"].state == "finished")
    assert tmp_path.joinpath("fails.jsonl").read_text() == '{"id":1}\n{"id":22222}\n'


async def test_a_config_that_is_wrong_now_is_refused_and_can_be_mended_again(tmp_path: Path) -> None:
    tmp_path.joinpath("in.jsonl").write_text('{"a": 1}\n')
    async with served(tmp_path, COPY) as server:
        await eventually(lambda: server.host["copy"].state == "finished")
        tmp_path.joinpath("0.yaml").write_text("name: copy\nstages: nothing\n")
        reply = await server.post("/api/pipelines/copy/start")
        assert (reply.status, reply.json["code"]) == (409, "config")
        tmp_path.joinpath("0.yaml").write_text(COPY.format(folder=tmp_path))
        assert (await server.post("/api/pipelines/copy/start")).status == 200


async def test_what_can_not_be_done_in_a_state_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("in.jsonl").write_text('{"a": 1}\n')
    async with served(tmp_path, COPY, ENDLESS) as server:
        await eventually(lambda: server.host["copy"].state == "finished")
        for verb in ("pause", "resume", "flush", "drain"):
            assert (await server.post(f"/api/pipelines/copy/{verb}")).status == 409
        for verb in ("start", "resume"):
            assert (await server.post(f"/api/pipelines/endless/{verb}")).status == 409
        reply = await server.post("/api/pipelines/endless/records", {"record": 1})
        assert (reply.status, reply.json["code"]) == (409, "no_inlet")
        assert (await server.post("/api/pipelines/nobody/start")).status == 404


async def test_letters_are_listed_without_records_and_shown_with_them(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS) as server:
        path = "/api/pipelines/endless/letters"
        letters: dict[str, Any] = {"total": 0}
        with anyio.fail_after(10):
            while letters["total"] < 3:
                letters = (await server.get(f"{path}?limit=2&stage=validate")).json
        assert [letter["record"] for letter in letters["letters"]] == [None, None]
        shown = (await server.get(f"{path}/{letters['letters'][0]['id']}")).json
        assert shown["record"] == {"id": 21}
        assert (await server.get(f"{path}/999999")).status == 404
        assert (await server.get(f"{path}?limit=0")).status == 400
        assert (await server.get(f"{path}?nothing=1")).status == 400


async def test_a_stream_begins_with_the_status_and_tells_what_happens(tmp_path: Path) -> None:
    async with served(tmp_path, ENDLESS, limits=Limits(streams=1)) as server:
        reader, writer = await server.connect()
        writer.write(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        name, data = await _event(reader)
        assert (name, data["pipelines"][0]["name"]) == ("status", "endless")
        assert (await server.get("/api/events")).status == 503
        await server.post("/api/pipelines/endless/pause")
        with anyio.fail_after(5):
            while (name, data.get("fields", {}).get("state")) != ("log", "paused"):
                name, data = await _event(reader)
        writer.close()
        await _until_a_stream_is_free(server)


async def test_a_slow_reader_loses_the_oldest_events_and_is_told_how_many() -> None:
    stream = Stream(backlog=3)
    for number in range(10):
        stream.log(b"%d" % number)
    stream.end("done")
    read = b"".join([event async for event in stream.read()])
    assert b'event: lost\ndata: {"count":7}' in read
    assert [line[6:] for line in read.split(b"\n") if line.startswith(b"data: ") and line[6:].isdigit()] == [
        b"7",
        b"8",
        b"9",
    ]
    assert b'event: end\ndata: {"reason":"done"}' in read


async def _event(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
    """Read the next event with data, past what frames it."""
    name = ""
    while True:
        line = (await reader.readline()).decode().strip()
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            return name, json.loads(line[6:])


async def _until_a_stream_is_free(server: Served) -> None:
    with anyio.fail_after(5):
        while True:
            reader, writer = await server.connect()
            writer.write(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            writer.close()
            if b" 200 " in head:
                return
