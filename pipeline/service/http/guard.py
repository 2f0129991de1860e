"""What every request must pass before it reaches a route, and what every answer carries."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from pipeline.service.http.access import Access
from pipeline.service.http.limits import Limits
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import Refusal

__all__ = ("Guard", "PUBLIC", "encoded")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC = ("/", "/favicon.ico", "/healthz", "/readyz")
"""Paths that need no token, like those below /assets/: they hold nothing of a record."""
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def encoded(refused: RequestRefused) -> bytes:
    """Return the body of a refusal."""
    return msgspec.json.encode(Refusal(refused.code, refused.reason, refused.stage, refused.letter))


class Guard:
    """An ASGI app in front of another one."""

    def __init__(self, app: App, access: Access, limits: Limits) -> None:
        self._app = app
        self._access = access
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                present = {name.lower() for name, _ in event.get("headers", ())}
                more = [header for header in _HEADERS if header[0] not in present]
                if b"cache-control" not in present:
                    more.append((b"cache-control", b"no-store"))
                event["headers"] = [*event.get("headers", ()), *more]
            await send(event)

        try:
            self._check(scope)
        except RequestRefused as refused:
            await _refuse(refused, scope, send_guarded)
        else:
            await self._app(scope, _bounded(receive, self._limits.body), send_guarded)

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if sum(len(name) + len(value) + 4 for name, value in headers) > self._limits.headers:
            raise RequestRefused("headers", "the headers are too long", 431)
        found = _once(headers)
        host = found.get("host")
        if host is None or not self._access.knows_host(host):
            raise RequestRefused("host", "this server does not go by that name; --allow-host adds one", 403)
        if scope["method"] not in _SAFE:
            self._check_origin(found, host)
        path: str = scope["path"]
        authorization = found.get("authorization")
        known = self._access.may_look(authorization)
        scope["known"] = known
        if not known and path not in PUBLIC and not path.startswith("/assets/"):
            text = "the token is needed: Authorization: Bearer TOKEN"
            raise RequestRefused("token", text, 401, {"www-authenticate": "Bearer"})
        if scope["method"] not in _SAFE and not self._access.knows_token(authorization):
            raise RequestRefused("scope", "this token may look and change nothing", 403)
        self._check_body(found)

    def _check_origin(self, found: dict[str, str], host: str) -> None:
        site = found.get("sec-fetch-site", "none")
        if not self._access.knows_origin(found.get("origin"), host) or site not in ("none", "same-origin"):
            raise RequestRefused("origin", "a page of another origin can't do that", 403)

    def _check_body(self, found: dict[str, str]) -> None:
        length = found.get("content-length", "0")
        if not length.isdigit() or int(length) > self._limits.body:
            raise RequestRefused("body", f"a request has at most {self._limits.body:,} bytes", 413)


def _once(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that may come only once.

    :raises RequestRefused: when one of those that decide something came twice.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        text = name.decode("latin-1")
        if text in found and text in ("host", "origin", "authorization", "content-type"):
            raise RequestRefused("headers", f"the header {text} came twice", 400)
        found[text] = value.decode("latin-1")
    return found


def _bounded(receive: Receive, limit: int) -> Receive:
    """Count what comes of a body: one in chunks does not say its length."""
    seen = 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        event = await receive()
        seen += len(event.get("body", b""))
        if seen > limit:
            raise RequestRefused("body", f"a request has at most {limit:,} bytes", 413, {"connection": "close"})
        return event

    return receive_bounded


async def _refuse(refused: RequestRefused, scope: Scope, send: Send) -> None:
    body = encoded(refused)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.encode(), value.encode()) for name, value in refused.headers.items()]
    if scope["method"] not in _SAFE:
        # Its body is not read, so the connection can't be used again.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
