"""What one client, or many of them together, may take of the server."""

from dataclasses import dataclass

__all__ = ("Limits",)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the server; sizes in bytes, times in seconds.

    ``body`` and ``headers`` are of one request, ``request_seconds`` is the time in which all of it must have arrived.
    ``connections`` are open at a time; ``incomplete`` of them may be sending a request, more are ended after
    ``burst_seconds``, the longest at it first. ``streams`` are open event streams, ``backlog`` the events
    kept for a slow one.
    """

    body: int = 1 << 20
    headers: int = 16 << 10
    request_seconds: float = 10.0
    burst_seconds: float = 1.0
    idle_seconds: float = 5.0
    connections: int = 1000
    incomplete: int = 100
    streams: int = 32
    backlog: int = 256
    records: int = 10_000
    """Records in one request."""
