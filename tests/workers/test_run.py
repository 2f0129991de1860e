"""`pipeline run --workers`: what several processes make of an input is what one process makes of it."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import ending, start, wait_for

pytestmark = pytest.mark.timeout(120)

CONFIG = """\
name: shared
partition: 16KiB
checkpoint: {path: state.db, interval: 50ms}
stages:
  - source: jsonl
    name: in
    with: {path: in.jsonl}
  - processor: call
    name: work
    with: {function: "work:each"}
    on_failure: dead_letter
  - batcher: fixed
    with: {size: 50}
  - sink: csv
    name: file
    with: {path: out.csv, columns: [n, odd]}
  - sink: sqlite
    name: table
    from: fixed
    with: {path: out.db, table: t}
"""
WORK = """\
import time

def each(record):
    time.sleep(record.get("wait", 0))
    if record["n"] % 100 == 7:
        raise ValueError("seven")
    return {"n": record["n"], "odd": bool(record["n"] % 2)}
"""


def prepare(folder: Path, count: int = 3000, config: str = CONFIG, **more: Any) -> None:
    (folder / "work.py").write_text(WORK)
    (folder / "c.yaml").write_text(config)
    lines = (json.dumps({"n": number, "pad": "x" * 20, **more}) + "\n" for number in range(count))
    (folder / "in.jsonl").write_text("".join(lines))


def run(folder: Path, *options: str) -> tuple[int, str]:
    return ending(start(folder, "run", "c.yaml", *options))


def table(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "out.db")) as connection:
        return sorted(connection.execute("SELECT n, odd FROM t"))


def letters(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        count: int = connection.execute("SELECT count(*) FROM letters").fetchone()[0]
        return count


def test_the_merged_output_is_that_of_one_process_and_nothing_else_is_left(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    for folder, options in ((one, ()), (several, ("--workers", "2"))):
        folder.mkdir()
        prepare(folder)
        code, said = run(folder, *options)
        assert code == 0, said
        assert "read 3,000 = written 2,970 + filtered 0 + skipped 0 + collected 0 + dead-lettered 30" in said
        code, said = ending(start(folder, "dlq", "list", "c.yaml", "--limit", "1"))
        assert (code, said) == (0, "1 of 30 shown; --limit shows more\n")
    # Before anybody opens the database, who would bring in a log that was left.
    left = [{path.name for path in folder.iterdir()} - {"__pycache__"} for folder in (one, several)]
    assert left[0] == left[1]
    assert (several / "out.csv").read_bytes() == (one / "out.csv").read_bytes()
    assert table(several) == table(one)


def test_a_run_that_is_drained_goes_on_with_another_number_of_workers_and_then_says_that_nothing_is_new(
    tmp_path: Path,
) -> None:
    prepare(tmp_path, wait=0.0005)
    process = start(tmp_path, "run", "c.yaml", "--workers", "2", "--log", "text")
    wait_for(process, "dead_letter")
    process.send_signal(signal.SIGTERM)
    code, said = ending(process)
    assert code == 143, said
    code, said = run(tmp_path, "--workers", "3")
    assert code == 0, said
    assert "all runs: read 3,000 = written 2,970" in said
    assert table(tmp_path) == [(n, n % 2) for n in range(3000) if n % 100 != 7]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2971
    code, said = run(tmp_path)
    assert (code, "nothing new to read" in said) == (0, True)
    code, said = run(tmp_path, "--fresh")
    assert code == 5
    assert "out.csv holds records of an earlier lineage of this pipeline" in said


def test_dead_letters_of_all_partitions_are_replayed_like_those_of_one_process(tmp_path: Path) -> None:
    prepare(tmp_path, 1000)
    assert run(tmp_path, "--workers", "2")[0] == 0
    (tmp_path / "work.py").write_text(WORK.replace("== 7", "== 700"))
    code, said = ending(start(tmp_path, "dlq", "replay", "c.yaml"))
    assert code == 0, said
    assert table(tmp_path) == [(n, n % 2) for n in range(1000)]
    numbers = [int(line.split(",")[0]) for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert sorted(numbers) == list(range(1000))
    code, said = run(tmp_path)
    assert (code, "nothing new to read" in said) == (0, True)


def test_a_record_that_stops_the_run_is_told_with_its_partition(tmp_path: Path) -> None:
    prepare(tmp_path, config=CONFIG.replace("    on_failure: dead_letter\n", ""))
    code, said = run(tmp_path, "--workers", "2")
    assert code == 1
    assert "error: partition " in said and "in.jsonl from " in said and "stage 'work' (processor call)" in said
    (tmp_path / "work.py").write_text(WORK.replace("== 7", "== 700"))
    code, said = run(tmp_path, "--workers", "1")
    assert code == 0, said
    assert table(tmp_path) == [(n, n % 2) for n in range(3000)]


def test_a_worker_and_a_writer_that_die_are_started_again(tmp_path: Path) -> None:
    prepare(tmp_path, wait=0.0005)
    process = start(tmp_path, "run", "c.yaml", "--workers", "2", "--log", "text")
    wait_for(process, "dead_letter")
    for victim in (b"worker", b"writer"):
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                ours = int(path.read_text().rpartition(")")[2].split()[1]) == process.pid
                if ours and b"pipeline.workers\0" + victim in path.with_name("cmdline").read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    break
            except OSError:
                continue
    code, said = ending(process)
    assert code == 0, said
    assert "was killed by signal 9; started again" in said
    assert table(tmp_path) == [(n, n % 2) for n in range(3000) if n % 100 != 7]


def test_a_record_that_kills_its_worker_again_and_again_ends_the_run_and_names_the_partition(tmp_path: Path) -> None:
    prepare(tmp_path, 1000, config=CONFIG.split("  - sink: sqlite")[0])
    kills = "import os\n" + WORK.replace("time.sleep", 'record["n"] == 700 and os._exit(9); time.sleep')
    (tmp_path / "work.py").write_text(kills)
    code, said = run(tmp_path, "--workers", "2")
    assert code == 1
    assert "error: the worker of partition 1 (in.jsonl from " in said
    assert "died 3 times without settling a record; the last time it ended with exit 9" in said


def test_what_one_process_began_is_not_divided_and_what_several_cannot_do_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert run(tmp_path)[0] == 0
    code, said = run(tmp_path, "--workers", "2")
    assert code == 5
    assert "one process began this, and its place can't be divided" in said
    code, said = run(tmp_path, "--workers", "2", "--limit", "5")
    assert code == 2
    assert "--limit: workers read many places at once" in said


def test_workers_without_a_partition_of_their_own_are_told_of(tmp_path: Path) -> None:
    prepare(tmp_path, config=CONFIG.replace("16KiB", "1MiB"))
    code, said = run(tmp_path, "--workers", "2")
    assert code == 0
    assert "1 partition for 2 workers: a partition has 1MiB or less (`partition: 1MiB`)" in said


def test_partitions_that_are_not_merged_leave_numbered_files(tmp_path: Path) -> None:
    config = CONFIG.replace("partition: 16KiB", "partition: 50KiB\nmerge: false").split("  - sink: sqlite")[0]
    prepare(tmp_path, config=config)
    assert run(tmp_path, "--workers", "2")[0] == 0
    made = sorted(path.name for path in tmp_path.glob("out*"))
    assert made == ["out-p0000.csv", "out-p0001.csv", "out-p0002.csv"]
    lines = [line for name in made for line in (tmp_path / name).read_text().splitlines()[1:]]
    assert [int(line.split(",")[0]) for line in lines] == [n for n in range(3000) if n % 100 != 7]


def test_the_bound_of_dead_letters_is_that_of_the_pipeline_and_not_of_each_partition(tmp_path: Path) -> None:
    bounded = CONFIG.replace("partition:", "dead_letter: {max: 12}\npartition:")
    prepare(tmp_path, config=bounded)
    for _ in range(2):
        code, said = run(tmp_path, "--workers", "2")
        assert code == 1, said
        assert "no room for its letter: dead letters are at their bound of " in said
        assert "for this partition" in said
        assert 0 < letters(tmp_path) <= 12
    (tmp_path / "c.yaml").write_text(bounded.replace("max: 12", "max: 1000"))
    code, said = run(tmp_path, "--workers", "2")
    assert code == 0, said
    assert "all runs: read 3,000 = written 2,970" in said
    assert letters(tmp_path) == 30
