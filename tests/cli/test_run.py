import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.commands import TO_JSONL, Command, ending, start, wait_for

LETTERS = TO_JSONL.replace("name: copy", "name: copy\non_failure: dead_letter").replace(
    "  - batcher", "  - processor: call\n    with: {function: 'work:check'}\n  - batcher"
)
CHECK = """\
def check(record):
    if record["a"] == 7:
        raise ValueError('bad\\n{"event": "finished"}\\x1b[2J')
    return record
"""


@pytest.fixture
def copying(command: Command) -> Command:
    command.write("in.jsonl", "".join(f'{{"a": {number}}}\n' for number in range(25)))
    command.write("copy.yaml", TO_JSONL)
    command.write("letters.yaml", LETTERS)
    command.write("work.py", CHECK)
    return command


def events(said: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in said.splitlines()]


def test_a_run_ends_with_its_account_and_says_nothing_on_standard_output(copying: Command) -> None:
    ran = copying("run", "copy.yaml")
    assert ran.out == ""
    assert ("read 25 = written 25 + filtered 0 + skipped 0 + collected 0 + dead-lettered 0 + unsettled 0\n") in ran.err
    assert "copy: done after" in ran.err


def test_a_second_run_says_that_there_is_nothing_new_and_counts_both(copying: Command) -> None:
    copying("run", "copy.yaml")
    ran = copying("run", "copy.yaml")
    assert ran.code == 0
    assert "goes on from its last checkpoint" in ran.err
    assert "nothing new to read" in ran.err
    assert "all runs: read 25 = written 25" in ran.err


def test_a_limit_reads_so_many_and_the_next_run_the_others(copying: Command) -> None:
    assert "read 7 = written 7" in copying("run", "copy.yaml", "--limit", "7").err
    assert "read 18 = written 18" in copying("run", "copy.yaml").err
    assert copying.read("out.jsonl").count("\n") == 25


def test_a_limit_is_of_each_run_and_says_when_more_may_be_left(copying: Command) -> None:
    for written in (10, 20):
        said = copying("run", "copy.yaml", "--limit", "10").err
        assert "read 10 = written 10" in said
        assert "--limit 10 is reached; what may be left is read with: pipeline run copy.yaml\n" in said
        assert "nothing new" not in said
        assert copying.read("out.jsonl").count("\n") == written
    said = copying("run", "copy.yaml", "--limit", "10").err
    assert "read 5 = written 5" in said
    assert "is reached" not in said
    assert "nothing new to read" in copying("run", "copy.yaml", "--limit", "10").err


def test_a_dry_run_opens_everything_and_writes_nothing(copying: Command) -> None:
    ran = copying("run", "copy.yaml", "--dry-run")
    assert ran.code == 0
    assert "dry run: 3 stages opened, nothing read and nothing written" in ran.err
    assert sorted(path.name for path in Path().iterdir() if path.name != "__pycache__") == [
        "copy.yaml",
        "in.jsonl",
        "letters.yaml",
        "work.py",
    ]


def test_a_dry_run_tells_that_a_source_is_not_there(copying: Command) -> None:
    Path("in.jsonl").unlink()
    ran = copying("run", "copy.yaml", "--dry-run")
    assert ran.code != 0
    assert "in.jsonl" in ran.err


def test_a_value_is_overridden(copying: Command) -> None:
    assert copying("run", "copy.yaml", "--set", "stages.out.with.path=other.jsonl").code == 0
    assert Path("other.jsonl").exists()
    assert not Path("out.jsonl").exists()


def test_a_fresh_run_refuses_what_the_last_lineage_wrote_unless_repeats_are_accepted(copying: Command) -> None:
    copying("run", "copy.yaml")
    refused = copying("run", "copy.yaml", "--fresh")
    assert refused.code == 5
    assert "out.jsonl" in refused.err
    assert copying("run", "copy.yaml", "--fresh", "--repeat").code == 0
    assert copying.read("out.jsonl").count("\n") == 50


def test_another_source_is_refused_until_the_change_is_accepted(copying: Command) -> None:
    copying("run", "copy.yaml")
    copying.write("new.jsonl", '{"a": 99}\n')
    refused = copying("run", "copy.yaml", "--set", "stages.jsonl.with.path=new.jsonl")
    assert refused.code == 5
    assert "--accept-changes" in refused.err
    accepted = copying("run", "copy.yaml", "--set", "stages.jsonl.with.path=new.jsonl", "--accept-changes")
    assert accepted.code == 0
    assert copying.read("out.jsonl").endswith('{"a":99}\n')


def test_functions_elsewhere_need_to_be_allowed(copying: Command) -> None:
    config = LETTERS.replace("work:check", "json:dumps")
    copying.write("else.yaml", config)
    assert copying("check", "else.yaml").code == 2
    assert copying("check", "else.yaml", "--allow-code", "json").code == 0


def test_dead_letters_end_with_the_command_that_shows_them(copying: Command) -> None:
    ran = copying("run", "letters.yaml")
    assert "dead-lettered 1" in ran.err
    assert "dead letters: 1 in .pipeline/copy.db; pipeline dlq list letters.yaml" in ran.err


def test_what_is_in_a_record_can_neither_forge_a_line_nor_move_the_cursor(copying: Command) -> None:
    plain = copying("run", "letters.yaml").err
    assert "\x1b" not in plain
    assert not any(line.startswith("{") for line in plain.splitlines())
    logged = copying("run", "letters.yaml", "--log", "text", "--fresh", "--repeat").err
    assert "\x1b" not in logged
    assert not any(line.startswith("{") for line in logged.splitlines())


def test_the_json_log_is_an_object_a_line_and_ends_with_the_account(copying: Command) -> None:
    ran = copying("run", "letters.yaml", "--log", "json")
    found = events(ran.err)
    names = [each["event"] for each in found]
    assert names[:2] == ["started", "configured"]
    assert names.count("finished") == 1
    assert names[-1] == "finished"
    assert all({"ts", "level", "event"} <= each.keys() for each in found)
    started, configured, finished = found[0], found[1], found[-1]
    assert started["service"] == "copy"
    assert started["version"]
    assert configured["stages"]
    assert configured["workers"]
    assert (finished["read"], finished["written"], finished["dead_lettered"]) == (25, 24, 1)
    letter = next(each for each in found if each["event"] == "dead_letter")
    assert letter["level"] == "warning"
    assert "in.jsonl:8" in str(letter["position"])


def test_batches_are_logged_at_debug_only(copying: Command) -> None:
    def logged(*words: str) -> set[object]:
        return {each["event"] for each in events(copying("run", "letters.yaml", "--fresh", "--repeat", *words).err)}

    assert "batch" not in logged("--log", "json")
    assert "batch" in logged("--log", "json", "--log-level", "debug")
    assert logged("--log", "json", "--log-level", "warning") == {"dead_letter"}
    ran = copying("run", "letters.yaml", "--log-level", "debug")
    assert ran.code == 2
    assert "add --log json or --log text" in ran.err


def test_what_fails_before_the_start_is_a_json_line_too(copying: Command) -> None:
    copying("run", "copy.yaml")
    found = events(copying("run", "copy.yaml", "--fresh", "--log", "json").err)
    assert found[-1]["event"] == "error"
    assert found[-1]["exit_code"] == 5


def test_secrets_are_shown_nowhere(copying: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "hunter2-hunter2")
    copying.write("hunter2-hunter2.jsonl", '{"a": 7}\nno json\n')
    copying.write("secret.yaml", LETTERS.replace("in.jsonl", "${env:WHERE}.jsonl"))
    said = [
        copying("check", "secret.yaml"),
        copying("check", "secret.yaml", "--json"),
        copying("run", "secret.yaml"),
        copying("run", "secret.yaml", "--log", "json", "--fresh", "--repeat"),
        copying("run", "secret.yaml", "--log", "text", "--fresh", "--repeat"),
        copying("dlq", "list", "secret.yaml"),
        copying("dlq", "show", "secret.yaml", "1"),
        copying("state", "show", "secret.yaml"),
        copying("state", "show", "secret.yaml", "--json"),
    ]
    assert [ran.code for ran in said] == [0] * len(said)
    assert not [ran for ran in said if "hunter2" in ran.out + ran.err]
    assert "***.jsonl:2" in said[2].err


def test_an_error_of_the_program_itself_is_one_line(copying: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("pipeline.cli.running.execute", broken)
    ran = copying("run", "copy.yaml")
    assert (ran.code, ran.err) == (
        1,
        "error: ZeroDivisionError: oops; this is a bug (pipeline --debug … shows where)\n",
    )
    with pytest.raises(ZeroDivisionError):
        copying("--debug", "run", "copy.yaml")


def test_a_slow_run_tells_its_progress_every_five_seconds_and_its_signal_at_once(tmp_path: Path) -> None:
    config = TO_JSONL.replace("jsonl\n    with: {path: in.jsonl}", "generate\n    with: {count: 100000, rate: 100/s}")
    tmp_path.joinpath("slow.yaml").write_text(config)
    with start(tmp_path, "run", "slow.yaml", "--log", "json") as process:
        line = wait_for(process, '"event":"progress"').splitlines()[-1]
        process.send_signal(signal.SIGTERM)
        said = wait_for(process, '"event":"finished"')
    progress = json.loads(line)
    assert progress["total"] == 100_000
    assert progress["processed"] + progress["failed"] + progress["remaining"] == progress["total"]
    assert progress["rate"] > 0
    assert {"batch", "notice", "draining", "stage_completed", "finished"} >= {
        str(each["event"]) for each in events(said)
    }
    assert events(said)[-1]["exit_code"] == 143


CLOSES_BADLY = """\
class Pool:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        raise RuntimeError("the pool would not close")

    async def __call__(self, record):
        return record
"""


def test_a_function_that_can_not_be_closed_is_told_with_stage_line_and_account(copying: Command) -> None:
    copying.write("work.py", CLOSES_BADLY)
    copying.write("pool.yaml", LETTERS.replace("work:check", "work:Pool"))
    ran = copying("run", "pool.yaml")
    assert ran.code == 1
    assert "read 25 = written 25" in ran.err
    assert "closing it failed: RuntimeError: the pool would not close (work.py:6)\n" in ran.err
    assert "error: stage 'call' (processor call): " in ran.err
    assert "this is a bug" not in ran.err
    assert "read 0 = written 0" in copying("run", "pool.yaml").err


def test_a_dry_run_knows_what_the_last_run_wrote_and_leaves_all_as_it_was(copying: Command) -> None:
    copying("run", "copy.yaml", "--limit", "7")
    before = {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    ran = copying("run", "copy.yaml", "--dry-run")
    assert (ran.code, "goes on from its last checkpoint" in ran.err) == (0, True)
    refused = copying("run", "copy.yaml", "--dry-run", "--fresh")
    assert (refused.code, "holds records of an earlier lineage" in refused.err) == (5, True)
    assert {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert "read 18 = written 18" in copying("run", "copy.yaml").err


def test_a_dry_run_refuses_what_the_run_refuses(copying: Command) -> None:
    copying.write("out.jsonl", "somebody else's\n")
    for options in ([], ["--dry-run"]):
        assert copying("run", "copy.yaml", *options).code == 5
    Path("out.jsonl").unlink()
    copying("run", "copy.yaml")
    copying.write("copy.yaml", TO_JSONL.replace("in.jsonl", "other.jsonl"))
    Path("in.jsonl").rename("other.jsonl")
    for options in ([], ["--dry-run"]):
        assert copying("run", "copy.yaml", *options).code == 5


def test_a_dry_run_refuses_a_database_that_is_gone_as_the_run_does(copying: Command) -> None:
    config = TO_JSONL.replace("sink: jsonl", "sink: sqlite").replace("path: out.jsonl", "path: out.db, table: t")
    copying.write("copy.yaml", config)
    assert copying("run", "copy.yaml").code == 0
    for path in copying.directory.glob("out.db*"):
        path.unlink()
    for options in ("--dry-run",), ():
        ran = copying("run", "copy.yaml", *options)
        assert ran.code == 5, options
        assert "this is not the database that the last run wrote to" in ran.err
        assert options == () or not copying.directory.joinpath("out.db").exists()
    copying.write("copy.yaml", config.replace("out.db", "nowhere/out.db").replace("name: copy", "name: other"))
    for options in ("--dry-run",), ():
        ran = copying("run", "copy.yaml", *options)
        assert (ran.code, "see that the folder exists" in ran.err) == (2, True)


def test_a_dry_run_refuses_what_workers_refuse(copying: Command) -> None:
    def refused(code: int, text: str, *options: str) -> None:
        for each in ("--dry-run",), ():
            ran = copying("run", "copy.yaml", "--workers", "2", *options, *each)
            assert (ran.code, text in ran.err) == (code, True)

    refused(2, "--limit: workers read many places at once", "--limit", "3")
    refused(2, "--accept-changes: partitions belong to the source", "--accept-changes")
    assert copying("run", "copy.yaml", "--limit", "3").code == 0
    refused(5, "one process began this, and its place can't be divided")
    refused(5, "out.jsonl holds records of an earlier lineage", "--fresh")


def test_a_dry_run_of_a_state_that_is_held_ends_with_4(copying: Command) -> None:
    copying.write("copy.yaml", TO_JSONL.replace("path: in.jsonl", "path: in.jsonl, follow: true"))
    running = start(Path(), "run", "copy.yaml")
    try:
        wait_for(running, "begins at the start")
        ran = copying("run", "copy.yaml", "--dry-run")
        assert (ran.code, f"process {running.pid}" in ran.err) == (4, True)
    finally:
        running.kill()
        running.communicate()


def test_a_run_that_is_refused_before_it_begins_leaves_no_state_behind(copying: Command) -> None:
    copying.write("out.jsonl", "somebody else's\n")
    assert copying("run", "copy.yaml").code == 5
    assert not Path(".pipeline").exists()
    assert copying.read("out.jsonl") == "somebody else's\n"


PRINTS = """\
print("while it is imported")


def shout(record):
    print("while it is called")
    return record
"""


def test_what_functions_print_goes_to_standard_error_and_records_to_standard_output(copying: Command) -> None:
    copying.write("work.py", PRINTS)
    to_stdout = LETTERS.replace("check", "shout").replace("on_failure: dead_letter", "").partition("  - sink")[0]
    copying.write("print.yaml", to_stdout + "  - sink: stdout\n")
    ran = copying("run", "print.yaml")
    assert [json.loads(line)["a"] for line in ran.out.splitlines()] == list(range(25))
    assert ran.err.count("while it is called\n") == 25
    assert ran.err.count("while it is imported\n") == 1


DEAF = """\
import asyncio


async def deaf(record):
    print("called", flush=True)
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass
"""


def test_a_function_that_does_not_end_when_cancelled_does_not_outlive_the_deadline_by_much(copying: Command) -> None:
    copying.write("work.py", DEAF)
    copying.write("deaf.yaml", LETTERS.replace("check", "deaf").replace("name: copy", "name: copy\ndrain: 100ms"))
    running = start(Path(), "run", "deaf.yaml")
    wait_for(running, "called")
    running.send_signal(signal.SIGINT)
    begun = time.monotonic()
    code, said = ending(running)
    assert (code, time.monotonic() - begun < 4) == (7, True)
    assert "read 25 = written 0 + filtered 0 + skipped 0 + collected 0 + dead-lettered 0 + unsettled 25\n" in said
    assert "does not end although it is cancelled: 'call'\n" in said
