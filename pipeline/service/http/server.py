"""The server around the app: its socket, its start, and an end in which every open request gets an answer."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Generator
from typing import Any

import anyio
import uvicorn

from pipeline.errors import ConfigError
from pipeline.service.http.access import Access
from pipeline.service.http.app import make_app
from pipeline.service.http.host import Host
from pipeline.service.http.limits import Limits
from pipeline.service.http.protocol import BoundedProtocol, BoundedState

__all__ = ("bind", "serve")

_BACKLOG = 1024
_PATIENCE = 2.0
"""Seconds in which answers must be taken and streams closed, once all pipelines have ended."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free.

    :raises ConfigError: when the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise ConfigError(f"can't listen on {host} port {port}: {reason}; --host and --port name another") from None


async def serve(host: Host, access: Access, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until the pipelines of a host have ended, which `Host.drain` asks them to.

    New requests are answered while it drains, those for records with a refusal. ``ready`` is called when it listens.
    """
    server = _Server(_config(host, access), host.limits)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, [listening])
        await server.began.wait()
        ready()
        await host.run()
        host.end_streams("the server has ended")
        await server.leave()


def _config(host: Host, access: Access) -> uvicorn.Config:
    # Only what is a bug of ours is worth a line; requests are counted, not logged.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return uvicorn.Config(
        make_app(host, access),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=host.limits.headers,
        timeout_keep_alive=int(host.limits.idle_seconds),
        timeout_graceful_shutdown=int(_PATIENCE),
    )


class _Server(uvicorn.Server):
    """Uvicorn's server with bounded connections, and with the signals left to whoever runs us."""

    def __init__(self, config: uvicorn.Config, limits: Limits) -> None:
        super().__init__(config)
        self.server_state = BoundedState(limits)
        self.began = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.began.set()

    async def leave(self) -> None:
        """End when all answers are taken; whoever does not take theirs in time is cut off."""
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_PATIENCE)
        connections: list[Any] = list(self.server_state.connections)
        for connection in connections:
            if connection.cycle is not None and not connection.cycle.response_complete:
                connection.transport.abort()
        self.should_exit = True
