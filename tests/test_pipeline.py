"""Composing a pipeline in Python: mistakes are told as those in a config are."""

from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.errors import ConfigError
from stages import sinks, sources


def test_keys_of_a_pipeline_that_nobody_knows_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"^Pipeline\('p'\): unknown key 'on_failre'; did you mean 'on_failure'\?$"):
        Pipeline("p", on_failre="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"^Pipeline\('p'\): 'exactly_once' is given without a name; write key=value"):
        Pipeline("p", "exactly_once")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"unknown key 'intervall'; did you mean 'interval'\?"):
        Pipeline("p", checkpoint={"intervall": 1})


def test_keys_of_a_stage_that_nobody_knows_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"^Csv: unknown key 'pth'; did you mean 'path'\?$"):
        sources.Csv(pth="in.csv")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_paths_are_taken_as_they_come(tmp_path: Path) -> None:
    assert sources.Csv(path=tmp_path / "in.csv").path == str(tmp_path / "in.csv")
    assert sources.Csv(path=[tmp_path / "in.csv", "more.csv"]).paths() == [str(tmp_path / "in.csv"), "more.csv"]
    assert sinks.Jsonl(path=tmp_path / "out.jsonl").path == str(tmp_path / "out.jsonl")
    assert sinks.Sqlite(path=tmp_path / "out.db", table="t").path == str(tmp_path / "out.db")


def test_a_config_and_python_say_the_same_of_a_pipeline(tmp_path: Path) -> None:
    config = tmp_path / "t.yaml"
    config.write_text(
        "name: t\nstages:\n  - source: csv\n    with: {path: in.csv, types: {a: int, b: float}, null_values: [NA]}\n"
        "  - sink: jsonl\n    with: {path: out.jsonl}\n"
    )
    source = sources.Csv(path="in.csv", types={"a": int, "b": "float"}, null_values=["NA"])
    composed = Pipeline("t") | source | sinks.Jsonl(path="out.jsonl")
    assert composed.topology().describe() == Pipeline.from_yaml(config).topology().describe()
