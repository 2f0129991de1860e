import io

import pytest
from rich.console import Console

from pipeline.cli.progress import Meter
from pipeline.cli.views import Lines, Screen
from pipeline.errors import PipelineError
from pipeline.watch.report import Account
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
