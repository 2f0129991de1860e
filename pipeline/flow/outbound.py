"""Tells somebody outside: posts a text to an address, or hands it to a program. Bounded in time, and never a record."""

import os
import signal
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

import anyio
from anyio.abc import ByteReceiveStream, ByteStream, Process

from pipeline.plan.address import Address, parse_url

__all__ = ("Outbound",)

_ANSWER = 4096
"""Bytes of an answer, or of what a program complains about, that are read."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """Somebody to tell: a URL, or a program with its arguments. ``timeout`` in seconds is for all of a telling."""

    to: str | list[str]
    timeout: float = 10.0

    @property
    def title(self) -> str:
        """Who it is, without what may be a secret."""
        return str(parse_url(self.to)) if isinstance(self.to, str) else self.to[0]

    async def tell(self, body: bytes, content_type: str, environ: Mapping[str, str] | None = None) -> str:
        """Hand over a text; ``environ`` is put into the environment of a program.

        Returns what went wrong, empty when nothing did. Cancelling it closes the connection or ends the program.
        """
        with anyio.move_on_after(self.timeout):
            try:
                if isinstance(self.to, str):
                    return await _post(parse_url(self.to), body, content_type)
                return await _run(self.to, body, environ or {})
            except (OSError, ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
                return str(error) or type(error).__name__
            except ExceptionGroup as group:
                return "; ".join(str(error) for error in group.exceptions)
        return f"no answer within {self.timeout:g}s"


async def _post(address: Address, body: bytes, content_type: str) -> str:
    stream: ByteStream = (
        await anyio.connect_tcp(address.host, address.port, tls=True, tls_standard_compatible=False)
        if address.tls
        else await anyio.connect_tcp(address.host, address.port)
    )
    async with stream:
        await stream.send(_head(address, len(body), content_type) + body)
        answer = b""
        while b"\r\n" not in answer and len(answer) < _ANSWER:
            answer += await stream.receive()
    words = answer.split(b"\r\n")[0].decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        return "the answer is not HTTP"
    # Nobody is followed elsewhere: a redirect would take the credentials along.
    return "" if words[1][:1] == "2" else f"answered {' '.join(words[1:])}"


def _head(address: Address, length: int, content_type: str) -> bytes:
    lines = [
        f"POST {address.target} HTTP/1.1",
        f"Host: {address.authority}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        "User-Agent: pipeline",
        "Connection: close",
        *([f"Authorization: {address.authorization}"] if address.authorization else []),
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


async def _run(command: list[str], body: bytes, environ: Mapping[str, str]) -> str:
    # A session of its own: a Ctrl-C is for us, and what it starts ends with it.
    process = await anyio.open_process(
        command, stdout=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **environ}
    )
    said = bytearray()
    code = -int(signal.SIGKILL)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_feed, process, body)
            if process.stderr is not None:
                group.start_soon(_listen, process.stderr, said)
            code = await process.wait()
            # A child of its own may keep the pipe open for ever.
            group.cancel_scope.deadline = min(group.cancel_scope.deadline, anyio.current_time() + 0.5)
    finally:
        _end(process)
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + 1.0):
            await process.aclose()
    text = bytes(said).decode("utf-8", "replace").strip().replace("\n", "; ")
    how = f"exit {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    return "" if code == 0 else f"{how}{f': {text}' if text else ''}"


async def _feed(process: Process, body: bytes) -> None:
    if process.stdin is None:
        return
    try:
        await process.stdin.send(body)
        await process.stdin.aclose()
    except (BrokenPipeError, ConnectionResetError, anyio.BrokenResourceError):
        # A program may well not care to read it.
        return


async def _listen(stream: ByteReceiveStream, said: bytearray) -> None:
    async for chunk in stream:
        said.extend(chunk[: max(0, _ANSWER - len(said))])


def _end(process: Process) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return
