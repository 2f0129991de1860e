"""A sample is the head of what a source reads, in its own form; the source itself is not touched."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.errors import ConfigError
from pipeline.stage import Source
from pipeline.verify.sample import places
from stages import sinks, sources


def sampled(source: Source, records: int, folder: Path) -> dict[str, object]:
    topology = (Pipeline("sampled") | source | sinks.Jsonl(path="out.jsonl")).topology()
    return places(topology, records, folder / "inputs")[topology.sources[0].name]


def text_of(place: object) -> str:
    return Path(str(place)).read_text()


def test_of_lines_the_first_are_copied(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("1\n2\n3\n")
    found = sampled(sources.Jsonl(path=str(tmp_path / "in.jsonl"), follow=True), 2, tmp_path)
    assert text_of(found["path"]) == "1\n2\n"
    assert found["follow"] is False


def test_a_record_of_several_lines_is_copied_whole_behind_its_head(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('a,b\n1,"two\nlines"\n2,x\n')
    assert text_of(sampled(sources.Csv(path=str(tmp_path / "in.csv")), 1, tmp_path)["path"]) == 'a,b\n1,"two\nlines"\n'


def test_of_several_files_as_many_as_are_needed_are_copied_compressed_as_they_are(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"in-{number}.jsonl.gz").write_bytes(gzip.compress(b"1\n2\n"))
    found = sampled(sources.Jsonl(path=str(tmp_path / "in-*.gz")), 3, tmp_path)["path"]
    assert isinstance(found, list)
    assert [gzip.decompress(Path(each).read_bytes()) for each in found] == [b"1\n2\n", b"1\n"]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def test_of_a_table_the_first_rows_stay_in_a_copy_of_the_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "in.db")) as connection:
        connection.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO rows VALUES (?)", [(number,) for number in range(10)])
        connection.commit()
    found = sampled(sources.Sqlite(path=str(tmp_path / "in.db"), table="rows"), 3, tmp_path)
    for path, rows in ((tmp_path / "in.db", 10), (str(found["path"]), 3)):
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM rows").fetchone() == (rows,)


def test_a_file_that_is_not_there_is_said_with_its_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage 'jsonl' \(source jsonl\): path: .*No such file"):
        sampled(sources.Jsonl(path=str(tmp_path / "in.jsonl")), 3, tmp_path)
