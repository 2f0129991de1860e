"""Tables are divided into ranges of keys, and the ranges hold each row once."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.stage import Partition
from stages import sources
from tests.stages.sources.reading import context_of

pytestmark = pytest.mark.anyio


def fill(path: Path, keys: list[Any]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (k, v)")
        connection.executemany("INSERT INTO t VALUES (?, 'x')", [(key,) for key in keys])
        connection.commit()


async def keys_of(source: sources.Sqlite, partition: Partition | None = None) -> list[Any]:
    context = context_of()
    context.partition = None if partition is None else partition.what
    reader = await source.open(context)
    try:
        return [record["k"] async for chunk in reader.read() for record in chunk.records]
    finally:
        await reader.close()


@pytest.mark.parametrize("cursor", ["rowid", "k"])
@pytest.mark.parametrize("text", [False, True])
async def test_ranges_hold_each_row_once_in_order(cursor: str, text: bool, tmp_path: Path) -> None:
    keys: list[Any] = [f"{key:06d}" if text else key * 7 for key in range(3500)]
    fill(tmp_path / "in.db", keys)
    source = sources.Sqlite(path=str(tmp_path / "in.db"), table="t", cursor=cursor)
    found = source.divide(1, [])
    assert len(found) == 4
    assert [key for partition in found for key in await keys_of(source, partition)] == keys
    assert source.divide(1, found) == []
    fill(tmp_path / "in.db", more := ["999999" if text else 10**6])
    assert [key for partition in source.divide(1, found) for key in await keys_of(source, partition)] == more


async def test_an_empty_table_has_no_ranges(tmp_path: Path) -> None:
    fill(tmp_path / "in.db", [])
    assert sources.Sqlite(path=str(tmp_path / "in.db"), table="t").divide(1000, []) == []


def test_a_query_and_a_polled_table_are_indivisible() -> None:
    assert "name a table" in (sources.Sqlite(path="x", query="SELECT 1 AS k", cursor="k").indivisible() or "")
    assert "poll" in (sources.Sqlite(path="x", table="t", poll=1.0).indivisible() or "")
