"""What the API offers, declared once: its routes and its document are both made from this."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.service.http.host import Host
from pipeline.service.http.refused import RequestRefused

__all__ = ("Call", "Endpoint", "Refusals")

Refusals = Mapping[int, str]
"""The statuses of an endpoint besides its own, and when each is given."""


@dataclass(slots=True)
class Call:
    """A request that was understood."""

    host: Host
    path: Mapping[str, Any]
    query: Any = None
    body: Any = None
    known: bool = True
    """Whether it brought the token, if one is needed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path: the shapes of its body (``takes``), of its parameters (``query``), of its answer."""

    method: str
    path: str
    name: str
    summary: str
    gives: type[Any]
    call: Callable[[Call], Awaitable[Any]]
    takes: type[Any] | None = None
    query: type[Any] | None = None
    refusals: Refusals = field(default_factory=dict[int, str])

    def read_query(self, pairs: list[tuple[str, str]]) -> Any:
        """Return the parameters.

        :raises RequestRefused: when they are not what is declared.
        """
        if self.query is None:
            return None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise RequestRefused("query", "a parameter came twice", 400)
        try:
            found: Any = msgspec.convert(given, self.query, strict=False)
        except msgspec.ValidationError as error:
            raise RequestRefused("query", str(error), 400) from error
        return found

    def check_kind(self, content_type: str) -> None:
        """Refuse a body that is said to be anything else: a page elsewhere can send other kinds without being asked.

        :raises RequestRefused: when it is.
        """
        if self.takes is not None and content_type.partition(";")[0].strip().lower() != "application/json":
            text = "send Content-Type: application/json, and {} if there is nothing to say"
            raise RequestRefused("content_type", text, 415)

    def read_body(self, body: bytes) -> Any:
        """Return the body.

        :raises RequestRefused: when it is no JSON, or not of the shape that is declared.
        """
        if self.takes is None:
            return None
        try:
            found: Any = msgspec.json.decode(body, type=self.takes)
        except msgspec.ValidationError as error:
            raise RequestRefused("shape", str(error), 422) from error
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RequestRefused("json", f"the body is no JSON: {error}", 400) from error
        return found
