"""Tests of how the texts of `when`, `by` and `order_by` reach the engine."""

from typing import Any

import msgspec
import pytest

from pipeline.errors import ConfigError
from pipeline.pipeline import Pipeline
from stages.batchers import Fixed
from stages.sinks import Collect
from stages.sources import Iterable

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct):
    carrier: str
    delay: int


def mixed() -> list[Any]:
    return [Flight("UA", 3), {"carrier": "AA", "delay": 2}, Flight("AA", 1), Flight("UA", 0), {"carrier": "UA"}]


async def test_typed_records_are_kept_apart_and_sorted_as_dicts_are() -> None:
    batcher = Fixed(size=10, by="carrier", order_by="coalesce(delay, 9)")

    report = await (Pipeline("flights") | Iterable(mixed()) | batcher | Collect()).run()

    assert report.records == [
        *[Flight("UA", 0), Flight("UA", 3), {"carrier": "UA"}],
        *[Flight("AA", 1), {"carrier": "AA", "delay": 2}],
    ]


async def test_when_reads_typed_records_and_their_origins() -> None:
    sink = Collect(when="carrier == 'UA' and _origin.number % 8 > 0")

    report = await (Pipeline("flights") | Iterable(mixed()) | sink).run()

    assert report.records == [Flight("UA", 0), {"carrier": "UA"}]
    assert report.account.filtered == 3


async def test_a_batch_cannot_be_made_by_what_is_not_of_the_record() -> None:
    pipeline = Pipeline("flights") | Iterable(mixed()) | Fixed(size=10, order_by="_origin.number") | Collect()

    with pytest.raises(ConfigError, match="key 'order_by': _origin is not known here, only the record"):
        await pipeline.run()
