import json
from pathlib import Path

import pytest

from tests.cli.commands import TO_JSONL, Command


def test_every_problem_of_every_file_is_told_with_its_place(command: Command) -> None:
    command.write("good.yaml", TO_JSONL)
    command.write("bad.yaml", TO_JSONL.replace("size: 10", "sise: 10").replace("sink: jsonl", "sink: jsnol"))
    ran = command("check", "good.yaml", "bad.yaml", "missing.yaml")
    assert ran.code == 2
    assert "bad.yaml:6:12: stage 'fixed' (batcher fixed): unknown key 'sise'; did you mean 'size'?" in ran.err
    assert "bad.yaml:7:11: stage 'out' (sink jsnol): unknown sink 'jsnol'; did you mean 'jsonl'?" in ran.err
    assert "missing.yaml: can't be read: No such file or directory" in ran.err
    assert "good.yaml: ok" in ran.out


def test_the_plan_has_stages_channels_memory_and_guarantees(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL)
    said = command("check", "copy.yaml").out
    assert "out: exactly once" in said
    assert "cut back to the last checkpoint" in said
    assert "into out: two batches or 16MiB" in said
    assert "memory: at most" in said
    assert "channel into sink 'out'" in said
    assert "checkpoint: every 1s" in said


def test_the_plan_names_the_code_that_exactly_once_rests_on(command: Command) -> None:
    command.write("work.py", "def change(record):\n    return record\n")
    config = TO_JSONL.replace("  - batcher", "  - processor: call\n    with: {function: 'work:change'}\n  - batcher")
    command.write("copy.yaml", config)
    assert "supposes that 'call'" in command("check", "copy.yaml").out


def test_the_same_as_json(command: Command) -> None:
    command.write("good.yaml", TO_JSONL)
    command.write("bad.yaml", TO_JSONL.replace("size: 10", "sise: 10"))
    ran = command("check", "good.yaml", "bad.yaml", "--json")
    assert ran.code == 2
    good, bad = json.loads(ran.out)["files"]
    assert good["ok"]
    assert good["plan"]["guarantees"]["out"]["exactly_once"]
    assert [stage["name"] for stage in good["plan"]["stages"]] == ["jsonl", "fixed", "out"]
    assert (bad["ok"], bad["problems"][0]["line"], bad["problems"][0]["column"]) == (False, 6, 12)


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"\xff\xfe\x00", b"", b"- 1\n", b"a: " + b"[" * 10_000])
def test_no_content_gives_a_traceback(command: Command, content: bytes) -> None:
    Path("odd.yaml").write_bytes(content)
    for verb in ("check", "run", "graph"):
        ran = command(verb, "odd.yaml")
        assert ran.code == 2
        assert ran.err.startswith("odd.yaml")


def test_no_file_gives_a_traceback(command: Command) -> None:
    Path("folder").mkdir()
    for path in ("missing.yaml", "folder", "", "a\0b", "x" * 5000):
        for words in (("check",), ("run",), ("graph",), ("state", "show"), ("dlq", "list")):
            assert command(*words, path).code == 2


def test_a_wrong_file_is_not_told_line_by_line(command: Command) -> None:
    command.write("wrong.yaml", "".join(f"user{number}{'x' * 80}: 1\n" for number in range(60)))
    for verb in ("check", "run", "graph"):
        said = command(verb, "wrong.yaml").err
        assert said.count("unknown key") <= 20
        assert "more\n" in said
        assert "x" * 41 not in said
    assert "62 problems in 1 of 1 file" in command("check", "wrong.yaml").err


def test_long_names_are_cut_wherever_they_stand(command: Command) -> None:
    odd = "z'" * 50
    command.write("wrong.yaml", f"name: w\nstages:\n  - source: {'y' * 90}\n    {odd}: 1\n  - sink: discard\n")
    said = command("check", "wrong.yaml").err
    assert "unknown source 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…'; expected one of csv" in said
    assert "y" * 41 not in said
    assert "z'" * 21 not in said


@pytest.mark.parametrize("verb", ["check", "run", "graph"])
def test_a_config_is_a_file(command: Command, verb: str) -> None:
    ran = command(verb, "-")
    assert ran.code == 2
    assert "a config is a file" in ran.err


def test_the_plan_says_who_is_told_without_what_may_be_a_secret(command: Command) -> None:
    told = "alerts: {stalled: 1m, webhook: 'https://me:hunter2@h/T0KEN'}\n"
    told += "metrics: {push: [tell, T0KEN], every: 5s}\n"
    command.write("told.yaml", TO_JSONL.replace("stages:", f"{told}stages:"))
    lines = command("check", "told.yaml").out.splitlines()
    assert "alerts: stalled; to the log and webhook at https://h" in lines
    assert "metrics: every 5s to command tell" in lines
