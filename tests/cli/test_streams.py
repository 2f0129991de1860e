"""Standard streams that are closed or full: an exit code and at most one line, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import TO_JSONL

TO_STDOUT = """\
name: print
stages:
  - source: generate
    with: {count: 100, record: {i: n}}
  - sink: stdout
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n' * 100)
    (tmp_path / "copy.yaml").write_text(TO_JSONL)
    (tmp_path / "print.yaml").write_text(TO_STDOUT)
    return tmp_path


def shell(folder: Path, line: str) -> tuple[int, str]:
    """Let a shell start the command with its streams redirected; return its exit code and what it says."""
    ran = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m pipeline {line}', sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in ran.stderr + ran.stdout
    assert "this is a bug" not in ran.stderr
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("words", ["run print.yaml", "check print.yaml", "schema", "--help", "run --help", "--version"])
def test_a_closed_standard_output_ends_with_141_where_output_was_wanted(folder: Path, words: str) -> None:
    code, said = shell(folder, f"{words} >&-")
    assert code == 141
    assert "rror" not in said


def test_a_run_that_needs_no_stream_is_done_without_any(folder: Path) -> None:
    assert shell(folder, "run copy.yaml >&- 2>&- <&-") == (0, "")
    # Had a file taken the number of a closed stream, what is said would stand in it.
    assert (folder / "out.jsonl").read_text() == '{"a":1}\n' * 100
    assert shell(folder, "state show copy.yaml")[0] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("check print.yaml", 0),
        ("run print.yaml", 0),
        ("run --nope", 2),
        ("check missing.yaml", 2),
        ("run copy.yaml", 0),
    ],
)
@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
def test_the_code_says_it_where_standard_error_can_not(folder: Path, words: str, code: int, stream: str) -> None:
    assert shell(folder, f"{words} {stream}") == (code, "")


@pytest.mark.parametrize("words", ["check print.yaml", "schema", "--help", "--version"])
def test_a_full_standard_output_is_one_line_and_6(folder: Path, words: str) -> None:
    code, said = shell(folder, f"{words} >/dev/full")
    assert code == 6
    assert said.startswith("error: ")
    assert "No space left on device" in said
    assert said.count("\n") == 1


def test_a_run_into_a_full_standard_output_fails_with_6(folder: Path) -> None:
    code, said = shell(folder, "run print.yaml >/dev/full")
    assert code == 6
    assert "No space left on device" in said
