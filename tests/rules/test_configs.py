"""The examples in configs/ are right, and run as they stand."""

import shutil
from pathlib import Path

import pytest

from pipeline.plan.load import load
from pipeline.stage import Source
from tests.cli.commands import Command, ending, start, wait_for

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, beside a copy of the examples."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


def test_there_are_examples_and_the_readme_names_them_all() -> None:
    readme = CONFIGS.joinpath("README.md").read_text()
    assert "quickstart.yaml" in NAMES
    assert [name for name in NAMES if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_example_passes_the_check(command: Command, name: str) -> None:
    ran = command("check", f"configs/{name}")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_and_all_of_its_records_end(command: Command, name: str) -> None:
    sources = [stage.spec for stage in load(f"configs/{name}").topology.sources]
    if any(isinstance(source, Source) and source.endless() for source in sources):
        with start(command.directory, "run", f"configs/{name}", "--log", "text") as process:
            wait_for(process, "configured")
            process.terminate()
            code, said = ending(process)
        assert "unsettled=0" in said
    else:
        ran = command("run", f"configs/{name}")
        code = ran.code
        assert "read 1,000 = " in ran.err
        assert "unsettled 0\n" in ran.err
    assert code == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_example_begins_by_saying_what_it_is(name: str) -> None:
    lines = CONFIGS.joinpath(name).read_text().splitlines()
    assert lines[0].startswith("# ")
    assert f"#   pipeline run configs/{name}" in lines
