"""HTTP connections that can't be held open by sending slowly: uvicorn itself waits for a request without end."""

import asyncio
import sys
from typing import Any

import h11
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pipeline.service.http.limits import Limits
from pipeline.service.http.shapes import Refusal

__all__ = ("BoundedProtocol", "BoundedState")

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedState(ServerState):
    """What the connections of a server share. ``incomplete`` are those that send a request, the oldest first.

    Many that come in one burst are read in the next turn of the loop, so nobody has to make room for another before
    having had ``burst_seconds``.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.incomplete: dict[BoundedProtocol, asyncio.TimerHandle] = {}
        self._sweeping = False

    def begin(self, connection: "BoundedProtocol") -> None:
        """Take note that a connection begins to send a request."""
        loop = connection.loop
        self.incomplete[connection] = loop.call_later(self.limits.request_seconds, connection.give_up)
        if len(self.incomplete) > self.limits.incomplete and not self._sweeping:
            self._sweeping = True
            loop.call_later(self.limits.burst_seconds, self._sweep)

    def _sweep(self) -> None:
        """End the connections that have been at it longest, down to as many as may be."""
        self._sweeping = False
        for connection in list(self.incomplete)[: max(0, len(self.incomplete) - self.limits.incomplete)]:
            connection.give_up()


class BoundedProtocol(H11Protocol):
    """One connection. A request that has not arrived whole in time is answered with 408 and closed."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, BoundedState)
        self._shared = server_state

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._shared.limits.connections:
            self._answer(503, "connections", "too many connections are open; try again later")
            transport.close()
            return
        self._follow()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """Take the next request of the connection."""
        super().on_response_complete()
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._complete()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or has headers beyond the limit."""
        error = sys.exc_info()[1]
        status = int(getattr(error, "error_status_hint", 400))
        text = "the request line and headers are too long" if status == 431 else "this is no valid HTTP request"
        self._answer(status, "not_http", text)
        self.transport.close()

    def _follow(self) -> None:
        if self.transport.is_closing() or not self._awaits_more():
            self._complete()
        elif self not in self._shared.incomplete:
            self._shared.begin(self)

    def _awaits_more(self) -> bool:
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return True
        # Between two requests a connection is idle, and uvicorn closes it soon.
        return state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def _complete(self) -> None:
        timer = self._shared.incomplete.pop(self, None)
        if timer is not None:
            timer.cancel()

    def give_up(self) -> None:
        """End a connection whose request did not arrive in time, or that must make room for another."""
        self._complete()
        cycle: Any = self.cycle
        if cycle is None or (cycle.response_complete and self.conn.their_state is h11.IDLE):
            self._answer(408, "too_slow", "the request did not arrive in time")
        elif not cycle.response_complete:
            if not cycle.response_started:
                self._answer(408, "too_slow", "the request did not arrive in time")
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def _answer(self, status: int, code: str, text: str) -> None:
        body = msgspec.json.encode(Refusal(code, text))
        reason = _REASONS.get(status, b"Service Unavailable")
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, reason, len(body)) + body)
