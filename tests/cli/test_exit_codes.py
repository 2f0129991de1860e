"""The exit codes of the command, frozen: scripts and service units go by them."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli.running import exit_code
from pipeline.cli.signals import Signals
from pipeline.errors import Exit
from pipeline.watch.report import Account, Report
from tests.cli.commands import TO_JSONL, Command, ending, start, wait_for, wait_for_file

FINITE = """\
name: slow
stages:
  - source: generate
    with: {count: 1000000, rate: 500/s, record: {i: n}}
  - batcher: fixed
    with: {size: 10}
  - sink: jsonl
    with: {path: out.jsonl}
"""
ENDLESS = FINITE.replace("count: 1000000, ", "")
TO_STDOUT = (
    FINITE.replace("rate: 500/s, ", "")
    .replace("sink: jsonl", "sink: stdout")
    .replace("    with: {path: out.jsonl}\n", "")
)
STUCK = FINITE.replace("name: slow", "name: stuck\ndrain: 50ms").replace(
    "  - sink", "  - processor: call\n    with: {function: 'work:wait'}\n  - sink"
)
WAIT = """\
import anyio, sys
async def wait(record):
    print("waiting", file=sys.stderr, flush=True)
    await anyio.sleep(3600)
"""


def test_the_codes_are_those_that_were_promised() -> None:
    assert {each.name: int(each) for each in Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "CONFIG": 2,
        "DEAD_LETTERS": 3,
        "LOCKED": 4,
        "STATE": 5,
        "STORAGE": 6,
        "DEADLINE": 7,
        "INTERRUPTED": 130,
        "CLOSED_OUTPUT": 141,
        "TERMINATED": 143,
    }


def test_0_when_all_is_done(command: Command) -> None:
    command.write("in.jsonl", '{"a": 1}\n')
    command.write("copy.yaml", TO_JSONL)
    assert command("run", "copy.yaml").code == 0


def test_1_when_a_record_stops_the_run(command: Command) -> None:
    command.write("in.jsonl", '{"a": 1}\nnot json\n')
    command.write("copy.yaml", TO_JSONL)
    ran = command("run", "copy.yaml")
    assert ran.code == 1
    assert "in.jsonl:2" in ran.err


def test_2_for_a_wrong_config_and_for_wrong_usage(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL.replace("size:", "sise:"))
    assert command("run", "copy.yaml").code == 2
    assert command("run", "copy.yaml", "--nope").code == 2
    assert command("rum").code == 2
    assert command("run").code == 2
    assert command("run", "copy.yaml", "--limit", "0").code == 2


def test_3_with_dead_letters_only_when_asked_for(command: Command) -> None:
    command.write("in.jsonl", '{"a": 1}\nnot json\n')
    command.write("copy.yaml", TO_JSONL + "on_failure: dead_letter\n")
    assert command("run", "copy.yaml", "--fail-on-dlq").code == 3
    # There was none in this run.
    assert command("run", "copy.yaml", "--fail-on-dlq").code == 0


def test_5_when_state_is_missing_or_corrupt(command: Command) -> None:
    command.write("in.jsonl", '{"a": 1}\n')
    command.write("copy.yaml", TO_JSONL)
    assert command("state", "show", "copy.yaml").code == 5
    Path(".pipeline").mkdir()
    command.write(".pipeline/copy.db", "this is no database, but it is long enough to look like one" * 100)
    ran = command("run", "copy.yaml")
    assert ran.code == 5
    assert not Path("out.jsonl").exists()


def test_4_and_143_when_a_run_holds_the_state_and_is_terminated(command: Command) -> None:
    command.write("slow.yaml", FINITE)
    with start(command.directory, "run", "slow.yaml") as process:
        wait_for(process, "run 1")
        second = command("run", "slow.yaml")
        process.send_signal(signal.SIGTERM)
        code, said = ending(process)
    assert second.code == 4
    assert str(process.pid) in second.err
    assert code == 143
    assert "pipeline run slow.yaml" in said
    assert_adds_up(said)


def test_130_when_a_finite_run_is_interrupted(tmp_path: Path) -> None:
    tmp_path.joinpath("slow.yaml").write_text(FINITE)
    with start(tmp_path, "run", "slow.yaml") as process:
        wait_for(process, "run 1")
        process.send_signal(signal.SIGINT)
        assert ending(process)[0] == 130
    shown = start(tmp_path, "state", "history", "slow.yaml", stdout=subprocess.PIPE)
    history = shown.communicate(timeout=20)[0]
    assert "interrupted" in history
    assert "143" not in history


def test_130_at_once_at_the_second_signal(tmp_path: Path) -> None:
    tmp_path.joinpath("stuck.yaml").write_text(STUCK.replace("50ms", "1h"))
    tmp_path.joinpath("work.py").write_text(WAIT)
    with start(tmp_path, "run", "stuck.yaml") as process:
        wait_for(process, "waiting")
        process.send_signal(signal.SIGINT)
        wait_for(process, "once more stops at once")
        process.send_signal(signal.SIGTERM)
        code, said = ending(process)
    assert code == 130
    assert "stopping at once" in said
    assert "begins again, because no checkpoint was saved yet, with: pipeline run stuck.yaml" in said


def test_0_when_an_endless_source_is_drained(tmp_path: Path) -> None:
    tmp_path.joinpath("slow.yaml").write_text(ENDLESS)
    with start(tmp_path, "run", "slow.yaml") as process:
        wait_for(process, "run 1")
        process.send_signal(signal.SIGTERM)
        code, said = ending(process)
    assert code == 0
    assert "drained" in said


def test_7_when_the_drain_is_not_done_in_time(tmp_path: Path) -> None:
    tmp_path.joinpath("stuck.yaml").write_text(STUCK)
    tmp_path.joinpath("work.py").write_text(WAIT)
    with start(tmp_path, "run", "stuck.yaml") as process:
        wait_for(process, "waiting")
        process.send_signal(signal.SIGTERM)
        assert ending(process)[0] == 7


def test_6_when_storage_fails(tmp_path: Path) -> None:
    tmp_path.joinpath("slow.yaml").write_text(FINITE.replace("rate: 500/s, ", ""))

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))

    # A file that may not grow gives EFBIG, which is as good as a full disk.
    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "slow.yaml"],
        cwd=tmp_path,
        preexec_fn=little_room,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ran.returncode == 6, ran.stderr
    assert "Traceback" not in ran.stderr


def test_141_when_standard_output_is_closed(tmp_path: Path) -> None:
    tmp_path.joinpath("print.yaml").write_text(TO_STDOUT)
    with start(tmp_path, "run", "print.yaml", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '{"i":0}\n'
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(20) == 141
    assert "rror" not in said


def test_141_when_nobody_reads_the_plan(tmp_path: Path) -> None:
    tmp_path.joinpath("print.yaml").write_text(TO_STDOUT)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed, start(tmp_path, "check", "print.yaml", stdout=closed) as process:
        code, said = ending(process)
    assert (code, said) == (141, "")


def test_a_signal_before_the_run_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with start(tmp_path, "run", "config.yaml") as process:
        # The command is certain to wait for its config once we could open it for writing.
        with open(tmp_path / "config.yaml", "w"):
            process.send_signal(signal.SIGINT)
            assert ending(process) == (130, "")


def test_a_background_run_of_a_shell_hears_an_interrupt(tmp_path: Path) -> None:
    tmp_path.joinpath("slow.yaml").write_text(FINITE)
    # A shell that is not interactive starts what is behind & with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(tmp_path, "run", "slow.yaml")
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        wait_for(process, "run 1")
        process.send_signal(signal.SIGINT)
        assert ending(process)[0] == 130


@pytest.mark.parametrize(
    ("code", "signals", "letters", "closed", "expected"),
    [
        (0, [], 0, False, 0),
        (0, [], 5, False, 3),
        (0, [signal.SIGTERM], 5, False, 3),
        (1, [], 5, False, 1),
        (1, [], 0, True, 141),
        (6, [signal.SIGTERM], 5, False, 6),
        (7, [signal.SIGTERM], 5, False, 7),
        (143, [signal.SIGTERM], 5, False, 143),
        (143, [signal.SIGINT, signal.SIGTERM], 5, False, 130),
        (143, [], 0, False, 143),
    ],
)
def test_where_several_codes_apply_the_graver_one_counts(
    code: int, signals: list[int], letters: int, closed: bool, expected: int
) -> None:
    received = Signals()
    received.received += signals
    account = Account(read=10, written=10 - letters, dead_lettered=letters)
    report = Report(pipeline="p", outcome="", exit_code=code, account=account, total=account, seconds=1)
    assert exit_code(report, received, fail_on_dlq=True, output_closed=closed) == expected


def assert_adds_up(said: str) -> None:
    line = next(line for line in said.splitlines() if line.startswith("read "))
    total, *parts = (int(word.replace(",", "")) for word in line.replace("=", "+").split() if word[0].isdigit())
    assert total == sum(parts)


def test_a_function_that_blocks_the_loop_is_not_waited_for(tmp_path: Path) -> None:
    tmp_path.joinpath("stuck.yaml").write_text(STUCK)
    blocks = WAIT.replace("async def", "def").replace("await anyio.sleep", "import time; time.sleep")
    tmp_path.joinpath("work.py").write_text(blocks)
    with start(tmp_path, "run", "stuck.yaml") as process:
        wait_for(process, "waiting")
        began = time.monotonic()
        # None can be answered, because nothing of ours runs; the third does not ask. Two at once may count as one.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert ending(process)[0] == 130
    assert time.monotonic() - began < 4


def test_the_function_that_a_drain_could_not_end_is_named_with_its_line(tmp_path: Path) -> None:
    tmp_path.joinpath("stuck.yaml").write_text(STUCK)
    blocks = WAIT.replace("async def", "def").replace("await anyio.sleep", "import time; time.sleep")
    tmp_path.joinpath("work.py").write_text(blocks)
    with start(tmp_path, "run", "stuck.yaml", "--set", "drain=100ms") as process:
        wait_for(process, "waiting")
        process.send_signal(signal.SIGINT)
        code, said = ending(process)
    assert code == 7
    assert re.search(r"error: \w+\(\) \(.*work\.py:\d+\) still blocks; ended without waiting for it", said), said


def test_functions_in_processes_go_on_when_a_terminal_interrupts_all_of_them(tmp_path: Path) -> None:
    config = FINITE.replace(
        "  - sink", "  - processor: call\n    with: {function: 'work:same', executor: process}\n  - sink"
    )
    tmp_path.joinpath("slow.yaml").write_text(config)
    tmp_path.joinpath("work.py").write_text("def same(record):\n    return record\n")
    with start(tmp_path, "run", "slow.yaml", new_group=True) as process:
        wait_for(process, "run 1")
        wait_for_file(tmp_path / "out.jsonl")
        os.killpg(process.pid, signal.SIGINT)
        code, said = ending(process)
    assert code == 130
    assert "unsettled 0\n" in said
