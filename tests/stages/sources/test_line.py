from hypothesis import given
from hypothesis import strategies as st

from pipeline.stage import Place
from stages.sources.line import Line

NEVER = float("inf")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-3, 3)),
        st.tuples(st.just("take"), st.integers(1, 4)),
        st.tuples(st.just("withdraw"), st.integers(0, 50)),
        st.tuples(st.just("pass"), st.integers(0, 20)),
    ),
    max_size=80,
)


def places_of(line: Line, count: int, now: float = 0.0) -> list[object]:
    return [place.record for place in line.take(count, now)]


def test_the_highest_priority_goes_first_and_within_it_who_came_first() -> None:
    line = Line(NEVER)
    for record, priority in [("a", 0), ("b", 2), ("c", 0), ("d", 2), ("e", -7)]:
        line.add(Place(record, priority), 0.0)

    assert places_of(line, 3) == ["b", "d", "a"]
    assert places_of(line, 9) == ["c", "e"]
    assert not len(line)


def test_whoever_has_waited_for_too_long_goes_before_all_others() -> None:
    line = Line(patience=30.0)
    line.add(Place("low", 0), 0.0)
    line.add(Place("lower", -1), 1.0)
    for second in range(1, 40):
        line.add(Place(second, 5), float(second))

    assert places_of(line, 1, now=29.0) == [1]
    assert places_of(line, 1, now=30.0) == ["low"]
    assert places_of(line, 3, now=31.5) == ["lower", 2, 3]


@given(STEPS)
def test_it_takes_what_a_sorted_list_would_give(steps: list[tuple[str, int]]) -> None:
    line, model, every, now = Line(10.0), list[Place](), list[Place](), 0.0
    for what, number in steps:
        if what == "add":
            place = Place(len(every), number)
            line.add(place, now)
            every.append(place)
            model.append(place)
        elif what == "pass":
            now += number
        elif what == "withdraw" and every:
            place = every[number % len(every)]
            assert line.withdraw(place) == (place in model)
            model = [other for other in model if other is not place]
        elif what == "take":
            overdue = sorted(
                (place for place in model if now - place.since >= 10.0),
                key=lambda place: (place.since, -place.priority),
            )
            others = sorted((place for place in model if place not in overdue), key=lambda place: -place.priority)
            expected = [*overdue, *others][:number]
            taken = line.take(number, now)
            assert taken == expected
            model = [place for place in model if place not in taken]
        assert len(line) == len(model)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(1, 5)), min_size=1, max_size=60))
def test_nobody_waits_longer_than_patience_and_those_before(arrivals: list[tuple[int, int]]) -> None:
    line, now = Line(patience=5.0), 0.0
    for priority, gap in arrivals:
        line.add(Place(None, priority), now)
        now += gap
        for place in line.take(1, now):
            assert now - place.since <= 5.0 + 5 * len(arrivals)


def test_what_is_withdrawn_does_not_pile_up() -> None:
    line = Line(NEVER)
    kept = Place("kept", 1)
    line.add(kept, 0.0)
    for number in range(10_000):
        place = Place(number, number % 3)
        line.add(place, 0.0)
        line.withdraw(place)

    assert sum(map(len, line._by_priority.values())) < 200  # pyright: ignore[reportPrivateUsage]
    assert places_of(line, 5) == ["kept"]
