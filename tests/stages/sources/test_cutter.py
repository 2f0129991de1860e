"""The law of the cutter: where runs of lines end depends on the bytes alone, not on the blocks in which they came."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from stages.sources.cutter import Cutter, LongLine
from stages.sources.marks import Mark

LENGTHS = some.one_of(some.integers(0, 12), some.sampled_from([60, 63, 64, 65, 130]))


def runs_of(blocks: list[bytes], records: int, max_line: int) -> tuple[list[Any], int, bytes]:
    """Return what is cut of blocks that come one after the other, and where the mark is in the end."""
    cutter, coming, found = Cutter(Mark(), max_line, records=records), list(blocks), list[Any]()
    while True:
        cut = cutter.cut()
        if isinstance(cut, LongLine):
            found.append(cut)
        elif cut is not None:
            found.append(cut)
            cutter.move(len(cut.raw), cut.raw.count(b"\n") or 1)
        elif coming:
            cutter.feed(coming.pop(0))
        elif not cutter.ended:
            cutter.end()
        else:
            assert cutter.is_empty()
            return found, cutter.mark.offset, cutter.mark.tail


@given(
    lengths=some.lists(LENGTHS, max_size=30),
    ends=some.booleans(),
    size=some.one_of(some.integers(1, 20), some.integers(50, 400)),
    records=some.integers(1, 9),
    max_line=some.sampled_from([64, 100, 1000]),
)
def test_runs_end_where_they_would_if_all_came_at_once(
    lengths: list[int], ends: bool, size: int, records: int, max_line: int
) -> None:
    data = b"\n".join(b"x" * length for length in lengths) + b"\n" * ends
    blocks = [data[at : at + size] for at in range(0, len(data), size)]

    assert runs_of(blocks, records, max_line) == runs_of([data] if data else [], records, max_line)
