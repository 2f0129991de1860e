"""Values given on the command line and in the environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.load import load_text
from tests.plan.kinds import registry

CONFIG = """\
name: t
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: filter
    name: only-late
    with: {where: a > 1}
  - sink: jsonl
    with: {path: out.jsonl}
  - sink: sqlite
    name: archive
    from: only-late
    with: &archive {path: a.db, table: t}
"""


def plan(settings: Sequence[str] = (), environ: Mapping[str, str] | None = None, *, confined: bool = False) -> Any:
    """Return the loaded config with these overrides."""
    return load_text(
        CONFIG, "c.yaml", registry=registry(), overrides=settings, environ=environ or {}, confined=confined
    )


def key(loaded: Any, stage: str, name: str) -> Any:
    """Return the value of a stage's key."""
    return getattr(loaded.topology.stages[stage].spec, name)


@pytest.mark.parametrize(
    ("setting", "stage", "name", "value"),
    [
        ("stages.archive.with.table=late", "archive", "table", "late"),
        ("stages.3.with.table=late", "archive", "table", "late"),
        ("stages.jsonl.with.path=other.jsonl", "jsonl", "path", "other.jsonl"),
        ("stages.jsonl.with.path=[a, b]", "jsonl", "path", ["a", "b"]),
        ("stages.jsonl-sink.with.path=a=b", "jsonl-sink", "path", "a=b"),
        ("stages.only-late.concurrency=4", "only-late", "concurrency", 4),
        ("stages.archive.timeout=250ms", "archive", "timeout", 0.25),
        ("stages.archive.with={path: b.db, table: x}", "archive", "table", "x"),
        ("stages.archive.with.table='010.'", "archive", "table", "010."),
        ("stages.archive.with.table='7'", "archive", "table", "7"),
        ("stages.archive.with.table=$${env:X}", "archive", "table", "${env:X}"),
    ],
)
def test_a_setting_reaches_its_key(setting: str, stage: str, name: str, value: object) -> None:
    assert key(plan([setting]), stage, name) == value


def test_a_setting_makes_the_mappings_on_its_way() -> None:
    assert key(plan(["stages.archive.retry.attempts=3"]), "archive", "retry").attempts == 3


def test_keys_of_the_pipeline_are_set_the_same_way() -> None:
    config = plan(["drain=1m", "checkpoint.interval=2s"]).config

    assert (config.drain, config.checkpoint.interval) == (60.0, 2.0)


def test_the_last_setting_counts_and_all_go_before_the_environment() -> None:
    environ = {"PIPELINE__STAGES__ARCHIVE__WITH__TABLE": "c", "PIPELINE__DRAIN": "3s"}
    loaded = plan(["stages.archive.with.table=a", "stages.archive.with.table=b"], environ)

    assert key(loaded, "archive", "table") == "b"
    assert loaded.config.drain == 3.0


def test_a_variable_finds_names_with_a_dash_and_keys_with_an_underscore() -> None:
    environ = {"PIPELINE__STAGES__ONLY_LATE__ON_FAILURE": "skip", "PIPELINE__STAGES__JSONL_SINK__WITH__PATH": "x"}
    loaded = plan((), environ)

    assert key(loaded, "only-late", "on_failure") == "skip"
    assert key(loaded, "jsonl-sink", "path") == "x"


def test_a_confined_config_takes_no_variables() -> None:
    assert plan((), {"PIPELINE__DRAIN": "3s"}, confined=True).config.drain == 10.0


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("stages.archive.with.tabel=x", "stage 'archive' (sink sqlite): unknown key 'tabel'; did you mean 'table'?"),
        (
            "stages.archive.with.table=7",
            "stage 'archive' (sink sqlite): key 'table': expected text, got a whole number",
        ),
        (
            "stages.only-late.with.where=a >",
            "stage 'only-late' (processor filter): key 'where': not an expression: invalid syntax",
        ),
        ("stages.archiv.with.table=x", "no stage 'archiv'; did you mean 'archive'?"),
        ("stages.9.with.table=x", "no index 9; there are 4, counted from 0"),
        ("stages.archive.with.table.x=1", "there are no keys below 'table'"),
        ("stages.archive.with.table.x.y=1", "there are no keys above 'x'"),
        (
            "stages.archive.with.table=[a",
            "not valid YAML: did not find expected ',' or ']' (while parsing a flow sequence)",
        ),
        ("stages.archive.with.table=a: b: c", "not valid YAML: mapping values are not allowed in this context"),
        ("stages.archive.with.table=!x y", "tags ('!x') are not supported; write the value without it"),
        (
            "stages.archive.with.table=${env:NOPE}",
            "stage 'archive' (sink sqlite): key 'table': environment variable NOPE is not set",
        ),
        ("stages..with=1", "expected keys with one separator between them"),
        ("drain=10", "key 'drain': expected a duration with a unit, like 250ms, got a whole number"),
    ],
)
def test_a_problem_is_told_in_the_name_of_its_setting(setting: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        plan([setting])

    assert len(raised.value.problems) == 1
    assert str(raised.value).startswith(f"--set {setting.partition('=')[0]}: {problem}")


def test_a_setting_without_a_value_says_what_is_expected() -> None:
    with pytest.raises(
        ConfigError, match=r"^--set drain: expected path=value, like stages\.archive\.with\.table=late$"
    ):
        plan(["drain"])


def test_problems_of_the_environment_name_the_variable() -> None:
    with pytest.raises(
        ConfigError, match=r"^environment PIPELINE__STAGES__ARCHIV__NAME: no stage 'ARCHIV'; did you mean 'archive'\?$"
    ):
        plan((), {"PIPELINE__STAGES__ARCHIV__NAME": "x"})


def test_problems_of_the_file_come_before_those_of_settings() -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(CONFIG + "drian: 1s\n", "c.yaml", registry=registry(), overrides=["drain=1"], environ={})

    assert [problem.file for problem in raised.value.problems] == ["c.yaml", "--set drain"]


def test_what_an_alias_shares_is_set_in_one_place_only() -> None:
    shared = CONFIG + "  - sink: sqlite\n    name: second\n    from: only-late\n    with: *archive\n"
    settings = ["stages.archive.with.table=late"]
    loaded = load_text(shared, "c.yaml", registry=registry(), overrides=settings, environ={})

    assert (key(loaded, "archive", "table"), key(loaded, "second", "table")) == ("late", "t")


def test_a_glob_is_text_and_no_alias() -> None:
    assert key(plan(["stages.jsonl.with.path=*.jsonl"]), "jsonl", "path") == "*.jsonl"
