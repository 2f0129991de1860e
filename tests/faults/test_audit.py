"""The auditor is believed because it finds what was planted."""

import pytest

from pipeline.verify.audit import Audit, audit
from tests.faults.records import ident, made


@pytest.mark.parametrize(
    ("found", "lost", "repeated", "reordered", "foreign"),
    [
        ([0, 1, 2, 3], 0, 0, 0, 0),
        ([0, 1, 3], 1, 0, 0, 0),
        ([0, 1, 1, 2, 3, 3], 0, 2, 0, 0),
        ([0, 2, 1, 3], 0, 0, 1, 0),
        ([0, 1, 2, 3, 9], 0, 0, 0, 1),
        ([0, 1, None, 3], 1, 0, 0, 1),
        ([], 4, 0, 0, 0),
    ],
)
def test_every_fault_is_counted(
    found: list[int | None], lost: int, repeated: int, reordered: int, foreign: int
) -> None:
    result = audit(range(4), found)
    counts = (result.lost, result.repeated, result.reordered, result.foreign)
    assert counts == (lost, repeated, reordered, foreign)
    assert result.clean == (found == [0, 1, 2, 3])


def test_order_is_asked_for_within_a_lane_only() -> None:
    assert audit(range(4), [1, 3, 0, 2], lane=lambda number: number % 2 if isinstance(number, int) else None).clean
    assert not audit(range(4), [3, 1, 0, 2], lane=lambda number: number % 2 if isinstance(number, int) else None).clean
    assert audit(range(4), [3, 1, 2, 0], lane=None).clean


def test_an_output_that_differs_is_not_clean() -> None:
    total = Audit()
    total.add(Audit(differs=("out",)))
    assert not total.clean
    assert "differs: out" in str(total)


def test_a_damaged_record_is_known_as_such() -> None:
    record = made(5)
    assert ident(record) == 5
    assert ident({**record, "seq": 6}) is None
    assert ident({**record, "pad": "cut"}) is None
    assert ident({**record, "part": 2}) == (5, 2)
