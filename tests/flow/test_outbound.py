"""Telling somebody outside: an address or a program, bounded in time, and told apart when it fails."""

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from pipeline.flow.outbound import Outbound

pytestmark = pytest.mark.anyio

Serve = Callable[[SocketStream], Awaitable[None]]


async def told(serve: Serve, timeout: float = 5.0, url: str = "http://{}/push?x=1") -> str:
    """Post to a server that answers like this."""
    problem = ""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            problem = await Outbound(url.format(f"127.0.0.1:{port}"), timeout).tell(b"body\n", "text/plain")
            group.cancel_scope.cancel()
    return problem


async def test_a_post_is_one_whole_request() -> None:
    requests: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            request = b""
            while not request.endswith(b"body\n"):
                request += await stream.receive()
            requests.append(request)
            await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert await told(serve, url="http://me:pass@{}/push?x=1") == ""
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /push?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nContent-Length: 5\r\n" in head
    assert b"\r\nAuthorization: Basic bWU6cGFzcw==" in head
    assert body == b"body\n"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 500 Oh No\r\n\r\n", "answered 500 Oh No"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://other/\r\n\r\n", "answered 302 Found"),
        (b"SSH-2.0-x\r\n", "the answer is not HTTP"),
        (b"", "EndOfStream"),
    ],
)
async def test_an_answer_that_is_no_success_is_a_problem(answer: bytes, problem: str) -> None:
    async def serve(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer)

    assert await told(serve) == problem


async def test_a_server_that_never_answers_is_waited_for_no_longer_than_the_timeout() -> None:
    async def serve(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    assert await told(serve, timeout=0.1) == "no answer within 0.1s"


async def test_nobody_at_the_address_is_a_problem() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    problem = await Outbound(f"http://user:hunter2hunter2@127.0.0.1:{port}/").tell(b"", "text/plain")
    assert problem
    assert "hunter2" not in problem


async def test_a_program_gets_the_text_on_its_input_without_a_shell(tmp_path: Path) -> None:
    code = "import os, sys; open(sys.argv[1], 'w').write(sys.argv[2] + sys.stdin.read() + os.environ['ALERT_RULE'])"
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(out), "$(id) `id` ; id |"]
    assert await Outbound(command).tell(b"body", "text/plain", {"ALERT_RULE": "stalled"}) == ""
    assert out.read_text() == "$(id) `id` ; id |bodystalled"


async def test_a_program_that_fails_is_told_with_what_it_says() -> None:
    code = "import sys; sys.stderr.write('no such channel\\n' + 'x' * 100_000); sys.exit(3)"
    problem = await Outbound([sys.executable, "-c", code]).tell(b"x" * 10_000_000, "text/plain")
    assert problem.startswith("exit 3: no such channel; xxx")
    assert len(problem) < 5000
    assert "No such file" in await Outbound(["/nowhere/no-such-program"]).tell(b"", "text/plain")


async def test_a_program_that_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    code = f"sleep 60 & echo $! > {tmp_path / 'pid'}; wait"
    with anyio.fail_after(5):
        assert await Outbound(["sh", "-c", code], 0.5).tell(b"", "text/plain") == "no answer within 0.5s"
    await anyio.to_thread.run_sync(wait_until_gone, tmp_path / "pid")


def wait_until_gone(file: Path) -> None:
    """Wait until the process that a file names has ended, or is only waited for."""
    stat = Path(f"/proc/{int(file.read_text())}/stat")
    until = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z":
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.01)
