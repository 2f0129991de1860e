"""What sinks wrote is read back whatever its form, and compared by content and count."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.plan.topology import PlannedStage
from pipeline.verify.outputs import compare, read_output
from stages import sinks


def planned(spec: sinks.Csv | sinks.Jsonl | sinks.Sqlite) -> PlannedStage:
    return PlannedStage("out", "sink", "kind", spec)


@pytest.mark.parametrize(
    ("found", "lost", "repeated", "reordered", "foreign"),
    [
        (["a", "b", "a", "c"], 0, 0, 0, 0),
        (["a", "b", "c"], 1, 0, 0, 0),
        (["a", "b", "a", "a", "c"], 0, 1, 0, 0),
        (["b", "a", "a", "c"], 0, 0, 1, 0),
        (["a", "b", "a", "c", "x"], 0, 0, 0, 1),
    ],
)
def test_equal_records_are_told_apart_by_their_count(
    found: list[str], lost: int, repeated: int, reordered: int, foreign: int
) -> None:
    result = compare(["a", "b", "a", "c"], found, ordered=True)
    assert (result.lost, result.repeated, result.reordered, result.foreign) == (lost, repeated, reordered, foreign)


def test_parts_are_read_in_order_and_plain_or_compressed(tmp_path: Path) -> None:
    (tmp_path / "out-000002.jsonl").write_bytes(b"3\n")
    (tmp_path / "out-000001.jsonl").write_bytes(gzip.compress(b"1\n2\n"))
    assert read_output(planned(sinks.Jsonl(path="out.jsonl")), tmp_path) == [b"1", b"2", b"3"]


def test_rows_of_text_are_records_whatever_their_lines_and_heads_are_none(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text('a,b\n1,"two\nlines"\n')
    assert read_output(planned(sinks.Csv(path="out.csv")), tmp_path) == [("1", "two\nlines")]


def test_rows_of_a_table_are_records_and_what_the_sink_remembers_is_not(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        connection.execute("CREATE TABLE rows (n)")
        connection.execute("CREATE TABLE _pipeline_sinks (n)")
        connection.executemany("INSERT INTO rows VALUES (?)", [(2,), (1,)])
        connection.commit()
    assert read_output(planned(sinks.Sqlite(path="out.db", table="rows")), tmp_path) == [(2,), (1,)]
