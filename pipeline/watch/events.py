"""What happens in a run, as it happens: named log events with fields, for whoever subscribes."""

from collections.abc import Callable, Mapping
from typing import Any, cast

__all__ = ("Events", "Subscriber", "hidden")

Subscriber = Callable[[str, Mapping[str, Any]], None]
"""Called with the event's name and fields, in the turn of the loop in which it happened; must not wait."""


class Events:
    """Hands each event to every subscriber, in order. Without subscribers it costs one call."""

    __slots__ = ("_subscribers", "mask", "records")

    def __init__(self, subscribers: tuple[Subscriber, ...] = ()) -> None:
        self._subscribers = list(subscribers)
        self.records = False
        """Whether each record that is written is worth an event: slow, so only where somebody asks for it."""
        self.mask: Callable[[str], str] | None = None
        """Hides secrets in every text of a field, where there are any to hide."""

    def __bool__(self) -> bool:
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add a subscriber; returns what takes it off again."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def emit(self, event: str, **fields: Any) -> None:
        """Tell that something happened."""
        if self.mask is not None:
            fields = hidden(fields, self.mask)
        for subscriber in self._subscribers:
            subscriber(event, fields)


def hidden(value: Any, mask: Callable[[str], str]) -> Any:
    """Return data with every text in it masked, and all else as it is."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        entries = cast("dict[Any, Any]", value)
        return {name: hidden(inner, mask) for name, inner in entries.items()}
    if isinstance(value, list | tuple):
        return [hidden(inner, mask) for inner in cast("list[Any]", value)]
    return value
