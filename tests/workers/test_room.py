"""The bound of dead letters, divided: parts never add up to more than it, and what is not used comes back."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.workers.room import Room


def test_the_first_partitions_get_equal_parts_of_what_is_left() -> None:
    room = Room(10, 1)
    assert [room.part(number, 3) for number in range(3)] == [3, 3, 3]


def test_a_partition_whose_worker_died_keeps_its_part() -> None:
    room = Room(10, 0)
    assert [room.part(0, 2), room.part(1, 2), room.part(0, 2)] == [5, 5, 5]


def test_what_a_partition_did_not_use_is_the_next_ones() -> None:
    room = Room(10, 0)
    assert [room.part(0, 2), room.part(1, 2)] == [5, 5]
    room.end(0, 1)
    assert room.part(2, 2) == 4
    room.end(1, 5)
    room.end(2, 4)
    assert room.part(3, 1) == 0


@given(
    bound=st.integers(1, 50),
    held=st.integers(0, 60),
    places=st.integers(1, 5),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=40),
)
def test_all_together_never_hold_more_than_the_bound(
    bound: int, held: int, places: int, steps: list[tuple[bool, int]]
) -> None:
    room, running, kept = Room(bound, held), dict[int, int](), held
    for number, (ends, letters) in enumerate(steps):
        if ends and running:
            ended, part = running.popitem()
            room.end(ended, min(letters, part))
            kept += min(letters, part)
        elif len(running) < places:
            running[number] = room.part(number, places)
        assert kept + sum(running.values()) <= max(bound, held)
