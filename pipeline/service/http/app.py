"""The ASGI app: the API, the stream of events, the dashboard, behind one guard."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from importlib.resources import files

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pipeline.errors import PipelineError
from pipeline.service.http.access import Access
from pipeline.service.http.api import ENDPOINTS
from pipeline.service.http.endpoint import Call, Endpoint
from pipeline.service.http.guard import Guard, encoded
from pipeline.service.http.host import Host
from pipeline.service.http.openapi import document
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import Readiness
from pipeline.watch.exposition import CONTENT_TYPE

__all__ = ("make_app",)

_ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "graph.js": "text/javascript; charset=utf-8",
    "plot.js": "text/javascript; charset=utf-8",
    "letters.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_JSON = "application/json"


def make_app(host: Host, access: Access) -> Guard:
    """Return the app of a host."""
    described = msgspec.json.encode(document(ENDPOINTS, list(host.pipelines), token=bool(access.token)))
    routes = [_route(host, path, endpoints) for path, endpoints in _by_path(ENDPOINTS).items()]
    routes += [
        Route("/api/events", _events(host), methods=["GET"]),
        Route("/openapi.json", _fixed(described, _JSON), methods=["GET"]),
        Route("/", _asset("index.html"), methods=["GET"]),
        Route("/favicon.ico", _asset("icon.svg"), methods=["GET"]),
        *(Route(f"/assets/{name}", _asset(name), methods=["GET"]) for name in _ASSETS),
    ]
    app = Starlette(
        routes=routes, exception_handlers={RequestRefused: _refused, HTTPException: _http, PipelineError: _failed}
    )
    return Guard(app, access, host.limits)


Answering = Callable[[Request], Awaitable[Response]]


def _by_path(endpoints: Sequence[Endpoint]) -> dict[str, dict[str, Endpoint]]:
    found: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        found.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return found


def _route(host: Host, path: str, endpoints: dict[str, Endpoint]) -> Route:
    async def answer(request: Request) -> Response:
        endpoint = endpoints["GET" if request.method == "HEAD" else request.method]
        endpoint.check_kind(request.headers.get("content-type", ""))
        query = endpoint.read_query(request.query_params.multi_items())
        body = endpoint.read_body(await request.body()) if endpoint.takes is not None else None
        given = await endpoint.call(Call(host, request.path_params, query, body, request.scope["known"]))
        if isinstance(given, str):
            return Response(given, headers={"content-type": CONTENT_TYPE})
        status = 503 if isinstance(given, Readiness) and not given.ready else 200
        return Response(msgspec.json.encode(given, enc_hook=str), status, media_type=_JSON)

    return Route(path, answer, methods=list(endpoints))


def _events(host: Host) -> Answering:
    async def answer(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        stream = host.listen()

        async def read() -> AsyncGenerator[bytes, None]:
            try:
                async for event in stream.read():
                    yield event
            finally:
                host.unlisten(stream)

        return StreamingResponse(read(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    return answer


def _fixed(content: bytes, media_type: str) -> Answering:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _asset(name: str) -> Answering:
    content = files("pipeline.service.http").joinpath("assets", name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=_ASSETS[name], headers={"cache-control": "no-cache"})

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return Response(encoded(error), error.status, error.headers, _JSON)


async def _http(request: Request, error: Exception) -> Response:
    """Say in our words what the router refused."""
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing under this path", 405: f"{request.method} is not possible here"}
    refused = RequestRefused(
        "not_found" if error.status_code == 404 else "method", text.get(error.status_code, error.detail)
    )
    return Response(encoded(refused), error.status_code, error.headers, _JSON)


async def _failed(request: Request, error: Exception) -> Response:
    """Storage and state that can't be read are no bug of ours."""
    return Response(encoded(RequestRefused("failed", str(error))), 500, None, _JSON)
