"""The OpenAPI document: made of what the routes are made of, so that it can't say anything else."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.service.http.endpoint import Endpoint
from pipeline.service.http.shapes import Refusal

__all__ = ("document",)

_ALWAYS = {
    400: "The request is malformed.",
    403: "The Host is not one of ours, or the Origin is another one.",
    408: "The request did not arrive in time.",
    431: "The headers are too long.",
}
_BODY = {413: "The body is too long.", 415: "The body is not application/json."}
_TOKEN = {401: "The token is missing or wrong."}


def document(endpoints: Sequence[Endpoint], pipelines: Sequence[str], *, token: bool) -> dict[str, Any]:
    """Return the document of an API for these pipelines; ``token`` says that one is needed."""
    types = {Refusal, *(each.gives for each in endpoints if each.gives is not str)}
    types |= {each.takes for each in endpoints if each.takes is not None}
    _, components = msgspec.json.schema_components(
        sorted(types, key=lambda each: each.__name__), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(_path(endpoint), {})[endpoint.method.lower()] = _operation(endpoint, pipelines, token)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "pipeline serve", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": components},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


_ABOUT = (
    "Pipelines of one process: their status, steering, submitting records, batches, dead letters. "
    "A refusal is always a `Refusal` with a code and a reason. Configs are not accepted over HTTP: what runs is what "
    "the command line named."
)


def _operation(endpoint: Endpoint, pipelines: Sequence[str], token: bool) -> dict[str, Any]:
    public = not endpoint.path.startswith(("/api", "/metrics"))
    found: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "responses": dict(_responses(endpoint, token and not public)),
    }
    parameters = [*_path_parameters(endpoint, pipelines), *_query_parameters(endpoint)]
    if parameters:
        found["parameters"] = parameters
    if endpoint.takes is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(endpoint.takes)}}}
    if token and not public:
        found["security"] = [{"token": []}]
    return found


def _responses(endpoint: Endpoint, token: bool) -> Iterator[tuple[str, Any]]:
    if endpoint.gives is str:
        content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    else:
        content = {"application/json": {"schema": _ref(endpoint.gives)}}
    yield "200", {"description": endpoint.summary, "content": content}
    refusals = {**_ALWAYS, **(_TOKEN if token else {}), **(_BODY if endpoint.takes else {}), **endpoint.refusals}
    if endpoint.takes is not None:
        refusals.setdefault(422, "The body has another shape.")
    for status, text in sorted(refusals.items()):
        shape = endpoint.gives if text.startswith("*") else Refusal
        yield (
            str(status),
            {
                "description": text.removeprefix("*"),
                "content": {"application/json": {"schema": _ref(shape)}},
            },
        )


def _path(endpoint: Endpoint) -> str:
    return endpoint.path.replace(":int}", "}")


def _path_parameters(endpoint: Endpoint, pipelines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for part in endpoint.path.split("/"):
        if part.startswith("{"):
            name, _, kind = part.strip("{}").partition(":")
            schema: dict[str, Any] = {"type": "string", "enum": list(pipelines)}
            if kind == "int":
                schema = {"type": "integer", "minimum": 0}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    if endpoint.query is None:
        return
    schema = msgspec.json.schema(endpoint.query)["$defs"][endpoint.query.__name__]
    for name, value in schema["properties"].items():
        yield {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": value}


def _ref(shape: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}
