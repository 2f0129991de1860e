import io
import json
import re
from pathlib import Path

import pytest

from tests.cli.commands import TO_JSONL, Command

TO_SQLITE = TO_JSONL.replace("sink: jsonl", "sink: sqlite").replace("{path: out.jsonl}", "{path: out.db, table: t}")


@pytest.fixture
def saved(command: Command) -> Command:
    """A pipeline that was run twice, with ten records more at the second time."""
    command.write("copy.yaml", TO_JSONL)
    command.write("in.jsonl", "".join(f'{{"a": {number}}}\n' for number in range(10)))
    assert command("run", "copy.yaml").code == 0
    with Path("in.jsonl").open("a") as file:
        file.write("".join(f'{{"a": {number}}}\n' for number in range(10, 20)))
    assert command("run", "copy.yaml").code == 0
    return command


def checkpoints(saved: Command) -> list[int]:
    return [each["id"] for each in json.loads(saved("state", "history", "copy.yaml", "--json").out)["checkpoints"]]


def test_where_a_pipeline_stands_is_shown(saved: Command) -> None:
    said = saved("state", "show", "copy.yaml").out
    assert "pipeline: copy\nstate: .pipeline/copy.db\n" in said
    assert re.search(r"lineage: [0-9a-f]{16}, run 2", said)
    assert "last run: done (0)" in said
    assert "source jsonl: 20 records settled" in said
    assert f"out.jsonl at {Path('out.jsonl').stat().st_size} bytes" in said
    assert "dead letters: 0" in said
    data = json.loads(saved("state", "show", "copy.yaml", "--json").out)
    assert data["checkpoint"]["sources"]["jsonl"]["number"] == 20
    assert data["held_by"] is None


def test_a_sink_whose_database_knows_its_place_is_shown_in_words(command: Command) -> None:
    command.write("copy.yaml", TO_SQLITE)
    command.write("in.jsonl", '{"a": 1}\n')
    assert command("run", "copy.yaml").code == 0
    assert "sink out: in its own database\n" in command("state", "show", "copy.yaml").out


def test_the_history_has_runs_and_checkpoints(saved: Command) -> None:
    said = saved("state", "history", "copy.yaml").out
    assert said.count("done (0)") == 2
    assert "jsonl 10" in said
    assert "jsonl 20" in said
    assert saved("state", "history", "copy.yaml", "--limit", "1").out.count("done (0)") == 1


def test_a_run_after_going_back_cuts_the_file_and_reads_again(saved: Command) -> None:
    whole = saved.read("out.jsonl")
    oldest = checkpoints(saved)[-1]
    said = saved("state", "rewind", "copy.yaml", "--to", str(oldest))
    assert said.code == 0
    assert f"back at checkpoint {oldest}" in said.out
    assert "source jsonl: 10 records settled; 10 are read again" in said.out
    assert "sink out: is cut back to" in said.out
    assert "pipeline run copy.yaml" in said.out
    with Path("out.jsonl").open("a") as file:
        file.write("torn")
    ran = saved("run", "copy.yaml")
    assert "read 10 = written 10" in ran.err
    assert saved.read("out.jsonl") == whole


def test_there_is_no_going_back_to_a_checkpoint_that_is_not_there(saved: Command) -> None:
    ran = saved("state", "rewind", "copy.yaml", "--to", "999")
    assert ran.code == 5
    assert "no checkpoint 999" in ran.err


def test_a_database_is_not_gone_back_in_unless_repeats_are_accepted(command: Command) -> None:
    command.write("copy.yaml", TO_SQLITE)
    command.write("in.jsonl", '{"a": 1}\n')
    command("run", "copy.yaml")
    only = str(checkpoints(command)[-1])
    ran = command("state", "rewind", "copy.yaml", "--to", only)
    assert ran.code == 5
    assert "sink 'out' (sqlite) keeps its rows" in ran.err
    assert command("state", "rewind", "copy.yaml", "--to", only, "--repeat").code == 0


def test_a_cleared_pipeline_begins_anew_and_keeps_its_history(saved: Command) -> None:
    assert saved("state", "clear", "copy.yaml", "--yes").code == 0
    said = saved("state", "show", "copy.yaml").out
    assert "nothing is saved" in said
    assert saved("state", "history", "copy.yaml").out.count("done (0)") == 2
    # The file holds what the old lineage wrote.
    assert saved("run", "copy.yaml").code == 5


def test_clearing_without_an_answer_changes_nothing(saved: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ran = saved("state", "clear", "copy.yaml")
    assert ran.code == 130
    assert "nothing was changed" in ran.err
    assert "20 records settled" in saved("state", "show", "copy.yaml").out


def test_where_nothing_was_run_the_way_to_a_state_is_told(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL)
    for words in (
        ("state", "show", "copy.yaml"),
        ("state", "history", "copy.yaml"),
        ("state", "rewind", "copy.yaml", "--to", "1"),
        ("state", "clear", "copy.yaml", "--yes"),
        ("dlq", "list", "copy.yaml"),
    ):
        ran = command(*words)
        assert ran.code == 5
        assert ran.err == (
            "error: .pipeline/copy.db: there is no state file here yet; `pipeline run copy.yaml` makes it\n"
        )
    command.write("print.yaml", TO_JSONL.replace("name: copy", "name: copy\ncheckpoint: none"))
    assert "keeps no state" in command("state", "show", "print.yaml").err


def test_the_state_of_another_pipeline_is_refused(saved: Command) -> None:
    saved.write("other.yaml", TO_JSONL.replace("name: copy", "name: other\ncheckpoint: {path: .pipeline/copy.db}"))
    ran = saved("state", "show", "other.yaml")
    assert ran.code == 5
    assert "pipeline 'copy', not of 'other'" in ran.err


def test_a_file_that_is_no_state_is_refused(saved: Command) -> None:
    saved.write("other.yaml", TO_JSONL.replace("name: copy", "name: copy\ncheckpoint: {path: in.jsonl}"))
    for words in (("state", "show"), ("dlq", "list"), ("state", "clear", "--yes")):
        assert saved(*words, "other.yaml").code == 5
    assert saved.read("in.jsonl").startswith('{"a": 0}')


def test_clearing_where_nobody_can_answer_names_the_option(saved: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ran = saved("state", "clear", "copy.yaml")
    assert ran.code == 2
    assert "use --yes" in ran.err
    assert "20 records settled" in saved("state", "show", "copy.yaml").out
