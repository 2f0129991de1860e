import json
import time

import pytest

from pipeline.cli.letters import moment_of
from pipeline.errors import ConfigError
from tests.cli.commands import Command, fail, letters

CHECK = """\
def check(record):
    if record["a"] % 10 == 3:
        raise ValueError(f"bad {record['a']}\\n\\x1b[31mred")
    if record["a"] == 5:
        raise KeyError("gone")
    return record
"""


@pytest.fixture
def failed(command: Command) -> Command:
    """A pipeline with four dead letters: 3, 5, 13, and a line that is no JSON."""
    fail(command, CHECK, before="batcher")
    assert "dead-lettered 4" in command("run", "copy.yaml").err
    return command


def test_letters_are_listed_with_stage_position_and_error(failed: Command) -> None:
    lines = failed("dlq", "list", "copy.yaml").out.splitlines()
    assert len(lines) == 5
    assert any("call" in line and "in.jsonl:4" in line and "ValueError: bad 3" in line for line in lines)
    assert any("jsonl" in line and "in.jsonl:16" in line for line in lines)


def test_a_letter_is_shown_with_its_record(failed: Command) -> None:
    [letter] = letters(failed, "--error", "KeyError")
    said = failed("dlq", "show", "copy.yaml", str(letter["id"])).out
    assert "stage: call" in said
    assert "error: KeyError: 'gone'" in said
    assert "position: in.jsonl:6" in said
    assert json.loads(said.partition("record:\n")[2]) == {"a": 5}
    assert json.loads(failed("dlq", "show", "copy.yaml", str(letter["id"]), "--json").out)["record"] == {"a": 5}


def test_what_is_in_an_error_reaches_the_terminal_as_text(failed: Command) -> None:
    for said in (failed("dlq", "list", "copy.yaml").out, failed("dlq", "show", "copy.yaml", "1").out):
        assert "\x1b" not in said
        assert "\\x1b[31mred" in failed("dlq", "list", "copy.yaml").out


def test_letters_are_chosen_by_stage_error_and_time(failed: Command) -> None:
    assert [each["record"] for each in letters(failed, "--stage", "call", "--error", "bad")] == [{"a": 3}, {"a": 13}]
    assert len(letters(failed, "--since", "1h")) == 4
    assert letters(failed, "--until", "1h") == []
    assert letters(failed, "--since", "2999-01-01") == []
    assert failed("dlq", "list", "copy.yaml", "--until", "1h").err == "no dead letters like that\n"


def test_a_limit_says_how_many_there_are(failed: Command) -> None:
    ran = failed("dlq", "list", "copy.yaml", "--limit", "1")
    assert len(ran.out.splitlines()) == 2
    assert ran.err == "1 of 4 shown; --limit shows more\n"


def test_a_letter_that_is_not_there_and_a_time_that_is_none_are_told(failed: Command) -> None:
    assert failed("dlq", "show", "copy.yaml", "99").code == 2
    ran = failed("dlq", "list", "copy.yaml", "--since", "yesterday")
    assert ran.code == 2
    assert ran.err.startswith("--since 'yesterday' is no moment")


def test_moments_are_dates_times_and_times_ago() -> None:
    assert moment_of("2026-03-01T12:00:00+00:00") == 1772366400.0
    assert abs(moment_of("2h") - (time.time() - 7200)) < 60
    for text in ("", "5", "1.2.3s", "2026-13-01", "tomorrow"):
        with pytest.raises(ConfigError):
            moment_of(text)


def test_a_letter_says_which_line_of_the_function_failed(failed: Command) -> None:
    assert {str(each["error"]).rpartition(" ")[2] for each in letters(failed, "--stage", "call")} == {
        "(work.py:3)",
        "(work.py:5)",
    }
