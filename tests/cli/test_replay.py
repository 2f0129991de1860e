"""Dead letters on the command line: replayed, exported, corrected and purged."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.settle.lock import Lock
from tests.cli.commands import TO_JSONL, Command, fail, letters

CHECK = """\
import os

def check(record, context):
    with open("keys", "a") as keys:
        keys.write(f"{record['a']} {context.key}\\n")
    if record["a"] % 10 == 3 and not os.path.exists("mended"):
        raise ValueError(f"bad {record['a']}")
    return record
"""


@pytest.fixture
def failed(command: Command) -> Command:
    """A pipeline with three dead letters: 3, 13, and a line that is no JSON; 13 others were written."""
    fail(command, CHECK, before="sink")
    assert "dead-lettered 3" in command("run", "copy.yaml").err
    return command


def id_of(command: Command, error: str) -> int:
    return int(letters(command, "--error", error)[0]["id"])


def written(command: Command) -> list[int]:
    return sorted(json.loads(line)["a"] for line in command.read("out.jsonl").splitlines())


def test_a_replay_ends_with_an_account_of_its_own_and_the_next_run_goes_on_where_the_last_one_was(
    failed: Command,
) -> None:
    failed.write("mended", "")
    ran = failed("dlq", "replay", "copy.yaml")
    assert ran.code == 0
    assert "run 2, replays 2 dead letters" in ran.err
    assert "read 2 = written 2 " in ran.err
    assert "left where they are: 1" in ran.err
    assert written(failed) == list(range(15))
    assert "nothing new to read" in failed("run", "copy.yaml").err
    assert "all runs: read 16 = written 13 " in failed("run", "copy.yaml").err


def test_a_letter_that_fails_again_keeps_its_id_and_key_and_counts_its_replays(failed: Command) -> None:
    before = letters(failed, "--stage", "call")
    for _ in range(2):
        assert "failed again: 2" in failed("dlq", "replay", "copy.yaml").err
    after = letters(failed, "--stage", "call")
    assert [(each["id"], each["key"], each["position"]) for each in after] == [
        (each["id"], each["key"], each["position"]) for each in before
    ]
    assert [each["replays"] for each in after] == [2, 2]
    assert "replayed 2 times" in failed("dlq", "show", "copy.yaml", str(after[0]["id"])).out
    keys = [line for line in failed.read("keys").splitlines() if line.startswith("3 ")]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_letter_that_failed_ten_times_is_left_unless_it_is_forced(failed: Command) -> None:
    with closing(sqlite3.connect(".pipeline/copy.db", isolation_level=None)) as connection:
        connection.execute("UPDATE letters SET replays = 10")
    failed.write("mended", "")
    ran = failed("dlq", "replay", "copy.yaml")
    assert "replayed 10 times and failed each time; --force" in ran.err
    assert "read 0 " in ran.err
    assert "written 2 " in failed("dlq", "replay", "copy.yaml", "--force").err


def test_what_a_source_could_not_read_is_replayed_with_a_corrected_record(failed: Command) -> None:
    ran = failed("dlq", "export", "copy.yaml", "-o", "bad.jsonl", "--stage", "jsonl")
    assert ran.code == 0, ran.err
    assert failed.directory.joinpath("bad.jsonl").stat().st_mode & 0o777 == 0o600
    (exported,) = [json.loads(line) for line in failed.read("bad.jsonl").splitlines()]
    assert exported["record"] == "nonsense"
    failed.write("bad.jsonl", json.dumps({**exported, "record": {"a": 100}}))
    assert "read 1 = written 1 " in failed("dlq", "replay", "copy.yaml", "--file", "bad.jsonl").err
    assert written(failed)[-1] == 100
    assert "read 0 " in failed("dlq", "replay", "copy.yaml", "--file", "bad.jsonl").err


def test_a_corrected_line_is_asked_for_as_the_record_that_it_holds(failed: Command) -> None:
    failed("dlq", "export", "copy.yaml", "-o", "bad.jsonl", "--stage", "jsonl")
    exported = json.loads(failed.read("bad.jsonl"))
    failed.write("bad.jsonl", json.dumps({**exported, "record": '{"a": 100}'}))
    before = failed.read("out.jsonl")
    ran = failed("dlq", "replay", "copy.yaml", "--file", "bad.jsonl")
    assert "its record is a text still; give the record that stands in it" in ran.err
    assert failed.read("out.jsonl") == before
    assert "nonsense" in failed("dlq", "list", "copy.yaml", "--stage", "jsonl", "--json").out


def test_what_is_exported_goes_back_unchanged(failed: Command) -> None:
    failed.write("mended", "")
    failed.write("all.jsonl", failed("dlq", "export", "copy.yaml", "--stage", "call").out)
    assert "written 2 " in failed("dlq", "replay", "copy.yaml", "--file", "all.jsonl").err
    assert written(failed) == list(range(15))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "bad.jsonl:1: not JSON"),
        ("[1]", "bad.jsonl:1: expected a letter as `dlq export` writes it"),
        ('{"id": 1}', "bad.jsonl:1: expected a letter"),
        ('{"id": 1, "record": 2}\n{"id": 1, "record": 2}', "bad.jsonl:2: letter 1 is here twice"),
        ('{"id": 1, "record": 2, "key": "another"}', "letter 1 is not the one that was exported"),
    ],
)
def test_a_file_that_holds_no_letters_of_ours_is_refused_by_line(failed: Command, line: str, said: str) -> None:
    failed.write("bad.jsonl", line)
    ran = failed("dlq", "replay", "copy.yaml", "--file", "bad.jsonl")
    assert ran.code == 2
    assert said in ran.err


def test_letters_may_enter_at_another_stage(failed: Command) -> None:
    ran = failed("dlq", "replay", "copy.yaml", "--stage", "call", "--from", "out")
    assert "written 2 " in ran.err
    assert written(failed) == list(range(15))
    ran = failed("dlq", "replay", "copy.yaml", "--from", "cal")
    assert ran.code == 2
    assert "there is no stage 'cal' to enter at; did you mean 'call'?" in ran.err


def test_a_dry_run_says_what_would_happen_and_does_nothing(failed: Command) -> None:
    failed.write("mended", "")
    ran = failed("dlq", "replay", "copy.yaml", "--dry-run")
    assert ran.code == 0
    assert "2 would be replayed\n  at call: 2\n" in ran.out
    assert "would be left: source 'jsonl' could not read it" in ran.out
    assert len(letters(failed)) == 3


def test_only_what_is_chosen_is_replayed(failed: Command) -> None:
    failed.write("mended", "")
    assert "written 1 " in failed("dlq", "replay", "copy.yaml", "--id", str(id_of(failed, "bad 13"))).err
    ran = failed("dlq", "replay", "copy.yaml", "--id", "99")
    assert "not among the dead letters (any more): 99" in ran.err
    assert "no dead letters like that" in ran.err
    assert len(letters(failed)) == 2


def test_a_state_that_is_in_use_is_left_alone(failed: Command) -> None:
    lock = Lock(Path(".pipeline/copy.db").resolve())
    lock.acquire()
    try:
        assert failed("dlq", "replay", "copy.yaml").code == 4
        assert failed("dlq", "purge", "copy.yaml", "--yes").code == 4
    finally:
        lock.release()
    assert len(letters(failed)) == 3


def test_letters_are_purged_when_that_is_confirmed(failed: Command) -> None:
    ran = failed("dlq", "purge", "copy.yaml")
    assert ran.code == 2
    assert "use --yes" in ran.err
    assert failed("dlq", "purge", "copy.yaml", "--error", "bad 3", "--yes").out == "1 deleted\n"
    assert failed("dlq", "purge", "copy.yaml", "--yes").out == "2 deleted\n"
    assert failed("dlq", "purge", "copy.yaml", "--yes").err == "no dead letters\n"
    assert "nothing new to read" in failed("run", "copy.yaml").err


def test_what_fails_again_is_an_exit_code_on_request(failed: Command) -> None:
    assert failed("dlq", "replay", "copy.yaml", "--fail-on-dlq").code == 3


def test_without_a_state_file_there_is_nothing_to_replay(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL)
    ran = command("dlq", "replay", "copy.yaml")
    assert ran.code == 5
    assert "no state file here yet" in ran.err
    assert not command.directory.joinpath(".pipeline").exists()
