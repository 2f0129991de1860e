"""The server as a process: how it refuses to start, and how it ends with requests under way."""

import asyncio
import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest

from tests.cli.commands import Command
from tests.service.http.process import TASKS, Process, serving
from tests.service.http.served import Reply, answer_of

SLOW = TASKS.replace("work:tasks", "work:slow").replace("200ms", "1s")
TOKEN = "xk29-QmZ7_tokEN-of-the-test-0123456789"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_reach_needs_a_token(command: Command, host: str) -> None:
    command.write("tasks.yaml", TASKS.replace("work:tasks", "json:dumps"))
    ran = command("serve", "tasks.yaml", "--host", host)
    assert ran.code == 2
    assert "needs a token" in ran.err


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 64, "0123456789abcdef", "spaces are not\nallowed in a token at all"]
)
def test_a_token_that_could_be_guessed_is_refused_and_not_shown(command: Command, token: str) -> None:
    command.write("tasks.yaml", TASKS)
    command.write("token", token)
    ran = command("serve", "tasks.yaml", "--token-file", "token")
    assert ran.code == 2
    assert "secrets.token_urlsafe" in ran.err
    assert not token or token not in ran.err


def test_what_is_wrong_is_said_before_anything_starts(command: Command) -> None:
    command.write("one.yaml", "name: one\nstages:\n  - source: inlet\n  - sink: nothing\n")
    command.write("two.yaml", "name: two\nstages:\n  - source: inlett\n  - sink: discard\n")
    ran = command("serve", "one.yaml", "two.yaml")
    assert ran.code == 2
    assert "one.yaml:4" in ran.err
    assert "two.yaml:3" in ran.err


def test_two_pipelines_of_one_name_are_refused(command: Command) -> None:
    for name in ("one.yaml", "two.yaml"):
        command.write(name, "name: same\nstages:\n  - source: inlet\n  - sink: discard\n")
    ran = command("serve", "one.yaml", "two.yaml")
    assert (ran.code, "'same'" in ran.err) == (2, True)


def test_a_port_in_use_is_said_in_a_line(command: Command, tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        port = str(urlsplit(first.url).port)
        command.write("other.yaml", "name: other\nstages:\n  - source: inlet\n  - sink: discard\n")
        ran = command("serve", "other.yaml", "--port", port)
        assert (ran.code, f"port {port}: Address already in use;" in ran.err) == (2, True)
        assert first.ask("/healthz") == (200, {"status": "ok"})


def test_a_run_refuses_what_only_a_server_can_feed(command: Command) -> None:
    command.write("tasks.yaml", "name: tasks\nstages:\n  - source: inlet\n  - sink: discard\n")
    ran = command("run", "tasks.yaml")
    assert (ran.code, "pipeline serve tasks.yaml" in ran.err) == (2, True)


def test_the_token_from_a_file_opens_the_api(tmp_path: Path) -> None:
    tmp_path.joinpath("token").write_text(f"{TOKEN}\n")
    with serving(tmp_path, "--token-file", "token") as server:
        assert server.ask("/api/pipelines")[0] == 401
        assert server.ask("/api/pipelines", token=TOKEN)[0] == 200
        code, said = server.end()
    assert (code, TOKEN in said) == (0, False)


def test_the_token_for_reading_looks_and_changes_nothing(tmp_path: Path) -> None:
    reading = TOKEN[::-1]
    tmp_path.joinpath("token").write_text(TOKEN)
    tmp_path.joinpath("reading").write_text(reading)
    with serving(tmp_path, "--token-file", "token", "--read-token-file", "reading") as server:
        assert server.ask("/api/pipelines", token=reading)[0] == 200
        code, answer = server.ask("/api/pipelines/tasks/pause", {}, token=reading)
        assert (code, answer["code"]) == (403, "scope")
        assert server.ask("/api/pipelines/tasks/records", {"record": {"id": 1}}, token=reading)[0] == 403
        assert server.ask("/api/pipelines/tasks/pause", {}, token=TOKEN)[0] == 200


def test_a_token_for_reading_alone_is_refused_as_is_one_that_may_do_all(command: Command) -> None:
    command.write("tasks.yaml", "name: tasks\nstages:\n  - source: inlet\n  - sink: discard\n")
    command.write("token", TOKEN)
    alone = command("serve", "tasks.yaml", "--read-token-file", "token")
    same = command("serve", "tasks.yaml", "--token-file", "token", "--read-token-file", "token")
    assert (alone.code, "without --token-file nobody needs a token" in alone.err) == (2, True)
    assert (same.code, "this is the token of --token-file" in same.err) == (2, True)


@pytest.mark.anyio
async def test_sigterm_with_200_open_requests_and_5_streams_loses_none(tmp_path: Path) -> None:
    with serving(tmp_path, configs=[SLOW]) as server:
        replies: dict[int, Reply] = {}
        ends: list[bytes] = []
        began = 0.0
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(_stream, server, ends)
            for number in range(200):
                group.start_soon(_submit, server, number, replies)
            # The slow function has begun, and more records came than it takes at a time.
            await anyio.to_thread.run_sync(_wait_for_records, server, 150)
            began = time.monotonic()
            server.process.terminate()
        code = await anyio.to_thread.run_sync(server.process.wait)
        assert server.process.stderr is not None
        said = await anyio.to_thread.run_sync(server.process.stderr.read)
        assert "Traceback" not in said
    assert time.monotonic() - began < 10
    assert code == 0
    assert len(replies) == 200
    assert len(ends) == 5
    assert all(b"event: end" in end for end in ends)
    answered = {number for number, reply in replies.items() if reply.status == 200}
    refused = {number: reply for number, reply in replies.items() if reply.status != 200}
    assert all(reply.status == 503 and reply.json["reason"] for reply in refused.values())
    with closing(sqlite3.connect(tmp_path / "tasks.db")) as database:
        written = {row[0] for row in database.execute("SELECT id FROM tasks")}
    assert written == answered
    assert len(answered) >= 150


def test_what_comes_while_it_drains_is_refused_with_a_reason(tmp_path: Path) -> None:
    with serving(tmp_path, configs=[SLOW]) as server:
        first: list[tuple[int, object]] = []
        thread = threading.Thread(target=lambda: first.append(server.ask("/api/pipelines/tasks/records", _task(1))))
        thread.start()
        time.sleep(0.15)
        server.process.terminate()
        time.sleep(0.05)
        status, refusal = server.ask("/api/pipelines/tasks/records", _task(2))
        assert (status, refusal["code"]) == (503, "closed")
        assert server.ask("/readyz")[0] == 503
        thread.join()
        assert first[0][0] == 200
        assert server.process.wait(10) == 0


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    tmp_path.joinpath("stuck.py").write_text(
        "import asyncio\n\n\nasync def stuck(batch):\n    await asyncio.sleep(60)\n"
    )
    with serving(tmp_path, configs=[SLOW.replace("work:slow", "stuck:stuck")]) as server:
        answers: list[tuple[int, object]] = []
        thread = threading.Thread(target=lambda: answers.append(server.ask("/api/pipelines/tasks/records", _task(1))))
        thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        server.process.terminate()
        time.sleep(0.2)
        server.process.terminate()
        assert server.process.wait(10) == 143
        thread.join()
    assert time.monotonic() - began < 5
    assert answers[0][0] == 503


def test_a_signal_while_it_starts_ends_it_too(tmp_path: Path) -> None:
    with serving(tmp_path, ready=False) as server:
        began = time.monotonic()
        code, _ = server.end()
    assert code == 0
    assert time.monotonic() - began < 5


def _task(number: int) -> dict[str, object]:
    return {"record": {"id": number, "kind": "email"}}


def _wait_for_records(server: Process, count: int) -> None:
    deadline = time.monotonic() + 10
    while server.ask("/api/pipelines/tasks/stats")[1]["submitted"]["submitted"] < count:
        assert time.monotonic() < deadline


async def _submit(server: Process, number: int, replies: dict[int, Reply]) -> None:
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    body = json.dumps(_task(number)).encode()
    head = f"POST /api/pipelines/tasks/records HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    replies[number] = await answer_of(reader)
    writer.close()


async def _stream(server: Process, ends: list[bytes]) -> None:
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET /api/events HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    ends.append((await reader.read())[-200:])
    writer.close()
