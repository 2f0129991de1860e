"""Log events, for whoever subscribes."""

from collections.abc import Mapping
from typing import Any

from pipeline.watch.events import Events


def test_every_subscriber_hears_every_event_in_order_until_it_is_taken_off() -> None:
    heard: list[tuple[str, str, Mapping[str, Any]]] = []
    events = Events((lambda event, fields: heard.append(("first", event, fields)),))
    off = events.subscribe(lambda event, fields: heard.append(("second", event, fields)))
    events.emit("batch", size=3)
    off()
    events.emit("drained")
    assert heard == [("first", "batch", {"size": 3}), ("second", "batch", {"size": 3}), ("first", "drained", {})]


def test_events_without_subscribers_are_false_and_cost_nothing() -> None:
    assert not Events()
    Events().emit("nobody", listens=True)
    assert Events((lambda event, fields: None,))
