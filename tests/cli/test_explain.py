import json
import os
import stat
from pathlib import Path

import pytest

from pipeline.cli.reported import write_report
from tests.cli.commands import TO_JSONL, Command, start, wait_for
from tests.watch.recorded import Told, report_of

ADAPTIVE = TO_JSONL.replace("batcher: fixed", "batcher: adaptive").replace("size: 10", "target_latency: 100ms")
RECORDS = "".join(f'{{"id": {number}}}\n' for number in range(300))


def ready(command: Command, text: str = ADAPTIVE) -> None:
    command.write("in.jsonl", RECORDS)
    command.write("copy.yaml", text)


def test_the_last_run_is_explained_in_words(command: Command) -> None:
    ready(command)
    assert command("run", "copy.yaml").code == 0

    ran = command("explain", "copy.yaml")

    assert ran.code == 0
    lines = ran.out.split("\n")
    assert lines[0].startswith("copy: run 1 began ")
    assert "read its input to the end" in lines[0]
    assert "batcher 'adaptive':" in lines
    assert any(line.startswith("  started at 1; the first batch (1 record) took ") for line in lines)
    assert "what held it up:" in lines
    assert lines.index("what to change:") < len(lines) - 1


def test_an_earlier_run_is_explained_by_its_number(command: Command) -> None:
    ready(command)
    command("run", "copy.yaml")
    command("run", "copy.yaml")

    assert command("explain", "copy.yaml").out.startswith("copy: run 2 began ")
    assert command("explain", "copy.yaml", "--run", "1").out.startswith("copy: run 1 began ")


def test_a_restart_is_told_to_be_warm(command: Command) -> None:
    ready(command)
    command("run", "copy.yaml")
    command.write("in.jsonl", RECORDS * 2)
    command("run", "copy.yaml")

    assert ", learned in the run before; " in command("explain", "copy.yaml").out


def test_without_state_or_without_that_run_it_exits_with_five(command: Command) -> None:
    ready(command)
    missing = command("explain", "copy.yaml")
    assert (missing.code, missing.out) == (5, "")
    assert "there is no state file here yet" in missing.err

    command("run", "copy.yaml")
    unknown = command("explain", "copy.yaml", "--run", "9")
    assert unknown.code == 5
    assert "there is no run 9 in the history; the last one is 1" in unknown.err


def test_a_pipeline_that_keeps_no_state_can_not_be_explained(command: Command) -> None:
    ready(command, ADAPTIVE.replace("stages:", "checkpoint: none\nstages:"))

    assert command("explain", "copy.yaml").code == 5


def test_a_run_that_left_no_report_is_told_by_its_checkpoint_and_the_one_before_by_its_own(command: Command) -> None:
    ready(command)
    command("run", "copy.yaml")
    command.write("in.jsonl", RECORDS * 2)
    command("run", "copy.yaml")
    forget_the_ending(command.directory / ".pipeline" / "copy.db")

    ran = command("explain", "copy.yaml")

    assert ran.code == 0
    assert ran.out.startswith("run 2 began ")
    assert "was killed, or is under way" in ran.out
    assert "600 records settled, all runs together" in ran.out
    assert "batcher 'adaptive': the limit was " in ran.out
    assert "the last run that ended is run 1\ncopy: run 1 began " in ran.out


def test_a_run_that_is_under_way_does_not_hide_the_one_before(command: Command) -> None:
    slow = "name: slow\nstages:\n  - source: generate\n    with: {count: 1000000, rate: 500/s, record: {i: n}}\n"
    command.write("slow.yaml", slow + "  - sink: jsonl\n    with: {path: out.jsonl}\n")
    assert command("run", "slow.yaml", "--limit", "5").code == 0
    process = start(command.directory, "run", "slow.yaml")
    try:
        wait_for(process, "run 2")
        ran = command("explain", "slow.yaml")
    finally:
        process.kill()
        process.communicate()

    assert ran.code == 0
    assert ran.out.startswith("run 2 began ")
    assert "\nslow: run 1 began " in ran.out


def test_as_json_the_sentences_come_with_the_numbers(command: Command) -> None:
    ready(command)
    command("run", "copy.yaml")

    found = json.loads(command("explain", "copy.yaml", "--json").out)

    assert found["run"]["report"]["history"]["batchers"][0]["name"] == "adaptive"
    assert found["explanation"]["batchers"]["adaptive"][0].startswith("started at 1")


def test_a_report_is_written_and_named(command: Command) -> None:
    ready(command)

    ran = command("run", "copy.yaml", "--report", "page.html")

    assert ran.code == 0
    assert ran.err.rstrip().endswith("report: page.html")
    page = command.read("page.html")
    assert page.startswith("<!doctype html>")
    assert "started at 1; the first batch" in page
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((command.directory / "page.html").stat().st_mode) == 0o666 & ~umask


def test_a_report_of_a_run_that_failed_is_written_too(command: Command) -> None:
    ready(command)
    command.write("in.jsonl", '{"id": 1}\nbroken\n')

    assert command("run", "copy.yaml", "--report", "page.html").code == 1
    assert "in.jsonl:2" in command.read("page.html")


@pytest.mark.parametrize(("path", "said"), [("no/page.html", "there is no directory"), (".", "this is a directory")])
def test_a_report_that_can_not_be_written_is_refused_before_the_run(command: Command, path: str, said: str) -> None:
    ready(command)

    ran = command("run", "copy.yaml", "--report", path)

    assert ran.code == 2
    assert said in ran.err
    assert not (command.directory / "out.jsonl").exists()


def test_a_dry_run_has_nothing_to_report_and_says_so(command: Command) -> None:
    ready(command)

    ran = command("run", "copy.yaml", "--dry-run", "--report", "page.html")

    assert ran.code == 2
    assert not (command.directory / "page.html").exists()


def test_a_report_that_fails_in_the_end_leaves_the_old_one_and_no_rest(tmp_path: Path) -> None:
    told = Told()
    told.climb()
    target = tmp_path / "page.html"
    target.mkdir()
    (target / "kept").touch()

    problem = write_report(str(target), report_of(told), told.recorder.history(), str)

    assert problem.startswith("the report could not be written: ")
    assert os.listdir(tmp_path) == ["page.html"]


def forget_the_ending(path: Path) -> None:
    """Make the last run look killed."""
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE runs SET ended = NULL, outcome = NULL, exit_code = NULL, report = NULL "
        "WHERE id = (SELECT max(id) FROM runs)"
    )
    connection.commit()
    connection.close()
