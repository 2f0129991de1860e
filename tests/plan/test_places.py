"""Stages that would get into each other's way are told apart before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.errors import ConfigError
from pipeline.plan.load import load_text
from pipeline.stage import Sink, Source
from stages import sinks, sources


def problems(source: Source, *written: Sink) -> list[str]:
    """Return what is wrong with a pipeline that writes all it reads to several sinks."""
    try:
        (Pipeline("p") | source | list(written)).topology()
    except ConfigError as error:
        return [problem.text for problem in error.problems]
    return []


def test_a_sink_may_not_write_to_what_a_source_reads() -> None:
    found = problems(sources.Csv(path=["b.csv", "x/../a.csv"]), sinks.Jsonl(path="./a.csv", name="out"))
    assert found == [
        "stage 'out' (sink jsonl): key 'path': './a.csv' is what source 'csv' reads from; "
        "give sink 'out' a place of its own"
    ]


def test_relative_and_absolute_paths_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(problems(sources.Lines(path="a"), sinks.Lines(path=str(tmp_path / "a")))) == 1


def test_two_sinks_may_not_write_to_the_same_place() -> None:
    read = sources.Csv(path="in.csv")
    found = problems(read, sinks.Jsonl(path="a", name="one"), sinks.Csv(path="a", name="two"))
    assert [text.partition(":")[0] for text in found] == ["stage 'two' (sink csv)"]
    assert "what sink 'one' writes to" in found[0]
    found = problems(
        read, sinks.Sqlite(path="a.db", table="t", name="one"), sinks.Sqlite(path="a.db", table="T", name="two")
    )
    assert "table 'T' of 'a.db' is what sink 'one' writes to" in found[0]
    assert len(problems(read, sinks.Sqlite(path="a.db", table="t"), sinks.Jsonl(path="a.db"))) == 1


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (sources.Csv(path="in.csv"), [sinks.Jsonl(path="a", name="one"), sinks.Jsonl(path="b", name="two")]),
        (
            sources.Sqlite(path="a.db", table="t"),
            [sinks.Sqlite(path="a.db", table="t", name="one"), sinks.Sqlite(path="a.db", table="u", name="two")],
        ),
        (sources.Sqlite(path="a.db", query="SELECT 1 AS a", cursor="a"), [sinks.Sqlite(path="a.db", table="t")]),
        (sources.Jsonl(path="out/*.jsonl"), [sinks.Jsonl(path="out/*.jsonl")]),
        (
            sources.Jsonl(path="in.jsonl"),
            [sinks.Jsonl(path="out/{a}.jsonl", name="one"), sinks.Jsonl(path="out/{a}.jsonl", name="two")],
        ),
        (sources.Lines(path="-"), [sinks.Lines(path="-")]),
    ],
)
def test_other_tables_globs_templates_and_streams_are_not_compared(source: Source, written: list[Sink]) -> None:
    assert problems(source, *written) == []


def test_a_config_is_told_where_the_path_stands() -> None:
    text = """name: t
stages:
  - source: csv
    with: {path: a.csv}
  - sink: csv
    name: out
    with: {path: ./a.csv}
"""
    with pytest.raises(ConfigError) as raised:
        load_text(text, "c.yaml", environ={})
    (problem,) = raised.value.problems
    assert (problem.line, problem.column) == (7, 18)
    assert "source 'csv'" in problem.text
    assert "stage 'out'" in problem.text


def test_values_of_wrong_types_in_python_are_said_in_a_sentence() -> None:
    wrong: list[object] = [5, None]
    found = problems(sources.Csv(path=5), sinks.Sqlite(path=6, table="t"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert found == [
        "stage 'csv' (source csv): key 'path': expected text or a list of text, got a whole number",
        "stage 'sqlite' (sink sqlite): key 'path': expected text, got a whole number",
    ]
    for name in wrong:
        with pytest.raises(ConfigError, match="expected text"):
            Pipeline(name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"Pipeline\.merge\(\) takes pipelines; got int 2"):
        Pipeline.merge(Pipeline("p"), 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_paths_of_pathlib_are_taken_for_texts() -> None:
    path: Any = Path("a.csv")
    assert sources.Csv(path=path).path == "a.csv"
    assert sources.Lines(path=[path, "b"]).path == ["a.csv", "b"]
    assert sources.Sqlite(path=path, table="t").identity()["path"] == "a.csv"
    assert sinks.Jsonl(path=path).path == "a.csv"
    assert sinks.Sqlite(path=path, table="t").path == "a.csv"
    plan = Pipeline("p", checkpoint={"path": path}) | sources.Csv(path=path) | sinks.Jsonl(path="b")
    assert plan.topology().checkpoint_path == "a.csv"
