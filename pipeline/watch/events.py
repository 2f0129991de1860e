"""What happens in a run, as it happens: named log events with fields, for whoever subscribes."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ("Events", "Subscriber")

Subscriber = Callable[[str, Mapping[str, Any]], None]
"""Called with the event's name and fields, in the turn of the loop in which it happened; must not wait."""


class Events:
    """Hands each event to every subscriber, in order. Without subscribers it costs one call."""

    __slots__ = ("_subscribers",)

    def __init__(self, subscribers: tuple[Subscriber, ...] = ()) -> None:
        self._subscribers = list(subscribers)

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add a subscriber; returns what takes it off again."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, event: str, **fields: Any) -> None:
        """Tell that something happened."""
        for subscriber in self._subscribers:
            subscriber(event, fields)
