from pathlib import Path

from pipeline.cli.config import ConfigFile
from pipeline.cli.ending import ending_lines
from pipeline.watch.report import Account, Report
from tests.cli.commands import TO_JSONL, Command


def ending(command: Command, report: Report, *, saved: bool) -> list[str]:
    command.write("copy.yaml", TO_JSONL)
    config = ConfigFile("copy.yaml")
    return list(ending_lines(report, config.load().topology, config, report.exit_code, saved=saved))


def report(outcome: str, code: int, dead_letters: int = 0) -> Report:
    account = Account(read=5, written=3, dead_lettered=2)
    return Report(
        pipeline="copy",
        outcome=outcome,
        exit_code=code,
        account=account,
        total=account,
        seconds=1.0,
        dead_letters=dead_letters,
    )


def test_what_is_not_saved_begins_again(command: Command) -> None:
    goes_on = "goes on from its last checkpoint with: pipeline run copy.yaml"
    begins = "begins again, because no checkpoint was saved yet, with: pipeline run copy.yaml"
    mended = "when that is mended, it "
    assert ending(command, report("interrupted", 143), saved=True)[-1] == goes_on
    assert ending(command, report("interrupted", 143), saved=False)[-1] == begins
    assert ending(command, report("failed", 1), saved=True)[-1] == mended + goes_on
    assert ending(command, report("failed", 1), saved=False)[-1] == mended + begins


def test_only_dead_letters_that_are_saved_are_said_to_be(command: Command) -> None:
    kept = ending(command, report("failed", 1, dead_letters=2), saved=True)
    lost = ending(command, report("failed", 1, dead_letters=0), saved=False)
    assert "dead letters: 2 in .pipeline/copy.db; pipeline dlq list copy.yaml shows them" in kept
    assert not [line for line in lost if line.startswith("dead letters")]
    assert not Path(".pipeline").exists()
