import io

import pytest
from rich.console import Console
from rich.text import Text

from pipeline.cli.progress import Meter, batch_text
from pipeline.cli.views import Lines, Screen
from pipeline.errors import PipelineError
from pipeline.watch.report import Account, StageStatus
from tests.cli.test_progress import of_bytes, status


def plain(text: str) -> str:
    return text


def test_the_picture_shows_share_rate_and_channels_and_goes_away_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, no_color=True)
    screen = Screen(plain, console)
    seen = status(3.0, Account(read=500, written=480, dead_lettered=3), of_bytes(420), fill=1.0, dead_letters=3)
    screen.progress(seen, Meter().look(seen))
    assert "42%" in written.getvalue()
    assert "500 read" in written.getvalue()
    assert "out █" in written.getvalue()
    assert "dead letters 3" in written.getvalue()
    screen.say("a sentence \x1b[2J above")
    assert "a sentence \\x1b[2J above" in written.getvalue()
    screen.finish(["the end"], {})
    assert capsys.readouterr().err == "the end\n"
    assert written.getvalue().endswith("\x1b[2K")


def test_a_narrow_terminal_shows_figures_where_a_bar_would_take_their_place() -> None:
    written = io.StringIO()
    screen = Screen(plain, Console(file=written, force_terminal=True, width=40, no_color=True))
    seen = status(3.0, Account(read=500, written=480), of_bytes(420))
    screen.progress(seen, Meter().look(seen))
    screen.close()
    assert "42%  500 read" in written.getvalue()
    assert "━" not in written.getvalue()


@pytest.mark.parametrize("width", [20, 60, 200])
def test_the_picture_has_two_lines_however_narrow_the_terminal_is(width: int) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, no_color=True)
    screen = Screen(plain, console)
    seen = status(3.0, Account(read=500, written=480, dead_lettered=3), of_bytes(420), fill=1.0, dead_letters=3)
    seen.channels *= 6
    screen.progress(seen, Meter().look(seen))
    lines = Text.from_ansi(written.getvalue().replace("\x1b[?25l", "")).plain.splitlines()
    screen.close()
    assert len(lines) == 2
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("p  running  ")
    assert lines[1].startswith("out █  out █")


def test_a_batcher_whose_bound_is_not_known_yet_is_told_without_it() -> None:
    stage = StageStatus("b", "batcher", "adaptive", "", 0, 0, 0, 0, 0, {}, 500, 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    seen = status(3.0, Account(read=500))
    seen.stages.append(stage)
    written = io.StringIO()
    screen = Screen(plain, Console(file=written, force_terminal=True, width=100, no_color=True))
    screen.progress(seen, Meter().look(seen))
    screen.close()
    assert "b: batch 500  out" in written.getvalue()
    assert batch_text(stage) == "batch 500"
    stage.limit = 2000
    assert batch_text(stage) == "batch 500 of 2,000"


def test_of_many_events_of_one_kind_the_first_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(plain)
    for number in range(50):
        lines.event("warning", {"text": f"number {number}"})
    said = capsys.readouterr().err
    assert "warning: number 4\n" in said
    assert "number 5" not in said
    assert "--log text has them all" in said


def test_an_error_before_the_start_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(plain).fail(PipelineError("first\nsecond"))
    assert capsys.readouterr().err == "error: first\nerror: second\n"
