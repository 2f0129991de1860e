import re

import pytest

from pipeline.watch.plot import Line, Mark, Plot, draw
from pipeline.watch.words import amount, seconds_text


def plot_of(*lines: Line, marks: tuple[Mark, ...] = (), top: float | None = None, end: float = 10.0) -> str:
    return draw(Plot("Title", "About", end, lines, amount, marks, top))


def ticks(text: str) -> list[str]:
    return re.findall(r'class="tick"[^>]*>([^<]*)<', text)


def test_axes_are_marked_in_round_numbers_from_zero_up_to_the_largest_value() -> None:
    text = plot_of(Line("size", [(0.0, 10.0), (10.0, 730.0)], "a"))

    assert ticks(text) == ["0", "200", "400", "600", "800", "0", "2s", "4s", "6s", "8s", "10s"]


def test_a_stretch_without_values_breaks_the_line() -> None:
    points = [(0.0, 1.0), (0.1, 1.0), (5.0, 2.0), (5.1, 2.0)]

    assert plot_of(Line("broken", points, "a")).count("<polyline") == 2
    assert plot_of(Line("whole", points, "a", whole=True)).count("<polyline") == 1


def test_a_value_beyond_the_top_is_drawn_at_the_edge() -> None:
    text = plot_of(Line("late", [(0.0, 1.0)], "a"), marks=(Mark(5.0, "far out", "bad", 50.0),), top=4.0)

    assert 'cy="10.0"' in text
    assert ticks(text)[:5] == ["0", "1", "2", "3", "4"]


def test_words_of_marks_that_stand_close_are_not_written_over_each_other() -> None:
    marks = tuple(Mark(seconds, f"at {seconds}", "turn", word="slower") for seconds in (1.0, 1.1, 6.0))

    text = plot_of(Line("x", [(0.0, 1.0)], "a"), marks=marks)

    assert text.count('class="bar turn"') == 3
    assert text.count(">slower<") == 2


def test_a_stepped_line_holds_its_value_up_to_the_next() -> None:
    text = plot_of(Line("limit", [(0.0, 0.0), (0.4, 10.0)], "a", stepped=True))

    (path,) = re.findall(r'points="([^"]*)"', text)
    assert len(path.split()) == 3


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e9])
def test_any_size_of_value_can_be_drawn(value: float) -> None:
    assert "nan" not in plot_of(Line("x", [(0.0, value), (10.0, value)], "a"))


def test_times_are_written_with_few_digits() -> None:
    assert [seconds_text(each) for each in (0.0, 0.0123, 0.5, 1.418, 59.96, 400, 7300)] == [
        *("0s", "12ms", "500ms", "1.42s", "60s", "6m 40s", "2h 01m"),
    ]
