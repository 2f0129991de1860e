"""What several workers can't do alike is refused before anything runs, with the reason."""

from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.errors import ConfigError
from pipeline.plan.load import load_text

HEAD = "name: p\nworkers: 2\n"
IN = "stages:\n  - source: jsonl\n    name: in\n    with: {path: in.jsonl}\n"
OUT = "  - sink: jsonl\n    name: out\n    with: {path: out.jsonl}\n"


def problems(text: str) -> list[str]:
    try:
        load_text(text, "c.yaml", environ={})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_what_has_partitions_is_taken() -> None:
    assert problems(HEAD + IN + "  - batcher: adaptive\n    with: {target_latency: 100ms, by: k}\n" + OUT) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            HEAD + IN + "  - processor: dedupe\n    with: {by: k}\n" + OUT,
            "c.yaml:7:5: stage 'dedupe' (processor dedupe): can't be shared by workers: it looks across records, "
            "and each worker sees only those of its partitions",
        ),
        (
            HEAD + IN + "  - sink: sqlite\n    with: {path: o.db, table: t, mode: upsert, key: k}\n",
            "c.yaml:7:5: stage 'sqlite' (sink sqlite): can't be shared by workers: upsert keeps the last record of a "
            "key, and the partitions of several workers have no order",
        ),
        (
            HEAD + IN + "  - sink: csv\n    with: {path: o.csv}\n",
            "c.yaml:7:5: stage 'csv' (sink csv): can't be shared by workers: the columns come from the first record, "
            "which only one worker sees; name them (columns)",
        ),
        (
            HEAD + IN + "  - sink: stdout\n",
            "c.yaml:7:5: stage 'stdout' (sink stdout): can't be shared by workers: the lines of several processes "
            "would mix; write to a file",
        ),
        (
            HEAD + "checkpoint: none\n" + IN + OUT,
            "c.yaml:3:13: key 'checkpoint': workers keep their partitions in the state file, and 'none' asks for none",
        ),
        (
            HEAD + "stages:\n  - source: generate\n    with: {count: 3, record: {a: n}}\n" + OUT,
            "c.yaml:4:5: stage 'generate' (source generate): can't be shared by workers: it has no partitions",
        ),
        (
            HEAD + "stages:\n  - source: jsonl\n    with: {path: '-'}\n" + OUT,
            "c.yaml:4:5: stage 'jsonl' (source jsonl): can't be shared by workers: a pipe is read once, as it comes",
        ),
    ],
)
def test_what_looks_across_partitions_is_refused(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_without_merging_each_partition_may_have_its_own_columns() -> None:
    assert problems(HEAD + "merge: false\n" + IN + "  - sink: csv\n    with: {path: o.csv}\n") == []


def test_one_worker_is_one_process_and_may_do_all_of_it() -> None:
    assert problems("name: p\nworkers: 1\n" + IN + "  - processor: dedupe\n    with: {by: k}\n" + OUT) == []


@pytest.mark.anyio
async def test_a_run_from_python_says_that_it_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("{}\n")
    (tmp_path / "c.yaml").write_text(HEAD + IN + OUT)
    report = await Pipeline.from_yaml("c.yaml").run()
    assert report.notes == ["'workers' is for the command `pipeline run`; this is one process"]
