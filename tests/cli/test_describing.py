"""The commands that describe what there is: stages, schema, graph, help."""

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline import __version__
from pipeline.plan.registry import Registry
from pipeline.plan.schema import keys_of
from tests.cli.commands import TO_JSONL, Command

KINDS = [
    (role, point.name)
    for role in ("source", "batcher", "processor", "sink")
    for point in entry_points(group=f"pipeline.{role}s")
]


def test_every_kind_is_listed_with_a_sentence(command: Command) -> None:
    lines = [line.split(maxsplit=2) for line in command("stages").out.splitlines()[1:]]
    assert sorted((role, kind) for role, kind, _ in lines) == sorted(KINDS)
    assert all(sentence.endswith(".") for _, _, sentence in lines)


@pytest.mark.parametrize(("role", "kind"), KINDS)
def test_every_key_of_a_kind_is_shown(command: Command, role: str, kind: str) -> None:
    ran = command("stages", role, kind)
    assert ran.code == 0
    for key in keys_of(Registry().stage(role, kind)):
        shown = re.search(rf"^    {key.name}: .+\n        {re.escape(key.description)}$", ran.out, re.MULTILINE)
        assert shown or key.type == "what only Python can give"


def test_a_kind_without_its_role_shows_all_that_are_called_so(command: Command) -> None:
    said = command("stages", "csv").out
    assert said.startswith("source csv\n")
    assert "\nsink csv\n" in said
    assert "null_values: a list of text" in said
    assert "escape_formulas" in said


def test_a_role_alone_lists_its_kinds_and_a_wrong_name_gives_the_nearest(command: Command) -> None:
    assert {line.split()[0] for line in command("stages", "sink").out.splitlines()[1:]} == {"sink"}
    ran = command("stages", "jsonk")
    assert (ran.code, ran.err) == (2, "unknown kind of stage 'jsonk'; did you mean 'jsonl'?\n")
    assert command("stages", "nope").err == "unknown kind of stage 'nope'; pipeline stages lists them\n"
    assert command("stages", "sink", "nope").err == "unknown sink 'nope'; pipeline stages sink lists them\n"
    assert command("stages", "csv", "jsonl").code == 2


def test_defaults_are_shown_as_a_config_has_them(command: Command) -> None:
    [fixed] = json.loads(command("stages", "batcher", "fixed", "--json").out)
    defaults = {key["name"]: key["default"] for key in fixed["keys"]}
    assert defaults["linger"] == "1s"
    assert {key["name"]: key["place"] for key in fixed["keys"]}["by"] == "with"


def test_the_schema_knows_every_kind(command: Command) -> None:
    said = command("schema").out
    assert json.loads(said)["type"] == "object"
    assert all(f'"{role}.{kind}"' in said for role, kind in KINDS)


def test_a_plan_is_drawn_as_text_mermaid_and_svg(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL)
    assert "out (jsonl)" in command("graph", "copy.yaml").out
    assert command("graph", "copy.yaml", "--format", "mermaid").out.startswith("flowchart LR")
    assert command("graph", "copy.yaml", "-o", "plan.svg").code == 0
    assert ElementTree.parse("plan.svg").getroot().tag.endswith("svg")
    ran = command("graph", "copy.yaml", "-o", "no/such/folder.svg")
    assert (ran.code, ran.err) == (2, "no/such/folder.svg: can't be written: No such file or directory\n")


def test_a_plan_is_not_drawn_over_its_config_nor_into_a_file_of_another_kind(command: Command) -> None:
    command.write("copy.yaml", TO_JSONL)
    Path("also.svg").symlink_to("copy.yaml")
    for words in (("-o", "copy.yaml"), ("-o", "./copy.yaml", "--format", "text"), ("-o", "also.svg"), ("-o", "li.png")):
        ran = command("graph", "copy.yaml", *words)
        assert ran.code == 2, words
        assert ran.err.startswith(f"-o {words[1]}: ")
    assert command.read("copy.yaml") == TO_JSONL
    assert not Path("li.png").exists()
    assert command("run", "copy.yaml", "--report", "copy.yaml").code == 2
    assert command.read("copy.yaml") == TO_JSONL
    assert command("graph", "copy.yaml", "-o", "plan.md", "--format", "mermaid").code == 0
    assert command.read("plan.md").startswith("flowchart")


def test_a_command_that_is_not_there_gives_the_nearest(command: Command) -> None:
    assert "Did you mean 'check'?" in command("chek").err
    assert "Did you mean '--limit'?" in command("run", "--limt", "3", "x").err


def test_every_command_has_its_help(command: Command) -> None:
    listed = re.findall(r"^  (\w+) ", command("--help").out.partition("Commands:")[2], re.MULTILINE)
    assert "..." not in command("--help").out.partition("Commands:")[2]  # each is said in a line of its own
    assert {"run", "check", "init", "stages", "schema", "graph", "state", "dlq"} <= set(listed)
    for words in [(name,) for name in listed] + [("state", "rewind"), ("dlq", "list")]:
        ran = command(*words, "--help")
        assert ran.code == 0
        assert ran.out.startswith("Usage: pipeline")


def test_the_version_is_told_without_the_engine(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = ['--version']\n"
        "from pipeline.__main__ import main\n"
        "code = main()\n"
        "slow = {'pipeline.pipeline', 'pipeline.plan', 'yaml', 'rich', 'anyio', 'msgspec', 'asyncio'}\n"
        "print(code, sorted(slow & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ran.stdout == f"pipeline {__version__}\n0 []\n"


def test_a_plain_run_imports_nothing_for_what_it_does_not_do(tmp_path: Path) -> None:
    (tmp_path / "copy.yaml").write_text(TO_JSONL)
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n')
    program = (
        "import sys\n"
        "from pipeline.cli.main import invoke\n"
        "code = invoke(['run', 'copy.yaml'])\n"
        "slow = {'importlib.metadata', 'rich', 'difflib', 'statistics', 'csv', 'gzip', 'tempfile', 'shutil',\n"
        "        'pipeline.flow.telling', 'pipeline.flow.replaying', 'pipeline.workers.coordinator',\n"
        "        'pipeline.watch.page', 'aiostream'}\n"
        "print(code, sorted(slow & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert ran.stdout == "0 []\n"


def test_a_shell_is_given_its_completion(tmp_path: Path) -> None:
    environment = {"_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": "pipeline st", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'pipeline'; from pipeline.__main__ import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.stdout.split() == ["plain,stages", "plain,state"]
