"""Cuts are data."""

import msgspec

from pipeline.settle.cut import Cut, Letter, SinkPoint, SourcePoint
from pipeline.spans import Held


def test_a_cut_comes_back_from_json_as_it_was() -> None:
    held = Held()
    held.add("csv", [7, 8, 12])
    cut = Cut(
        sources={"csv": SourcePoint(cursor={"offset": 80}, skip=2, number=7, islands=[(9, 11)])},
        sinks={"out": SinkPoint(position=[1, "x"], held=held.encode())},
        counters={"read": 12},
        taken_at=5.5,
    )
    again = msgspec.json.decode(msgspec.json.encode(cut), type=Cut)
    assert again.sources == cut.sources
    assert again.counters == cut.counters
    assert list(Held.decode(again.sinks["out"].held).numbers("csv")) == [(7, 9), (12, 13)]


def test_cuts_share_nothing_that_changes() -> None:
    letter = Letter(stage="f", source="csv", number=1, error_type="E", error="e", at=0.0, run=1, lineage="x")
    first, second = Cut(), Cut()
    first.letters.append(letter)
    first.sources["csv"] = SourcePoint()
    assert not second.letters
    assert not second.sources
