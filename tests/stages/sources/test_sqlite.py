import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Failed
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, StageError, StateError, StorageError
from pipeline.stage import Chunk, Progress, SourceContext
from stages.sources import Sqlite

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.db"


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def fill(path: Path, values: Iterable[tuple[Any, ...]], columns: str = "id INTEGER PRIMARY KEY, v") -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS t ({columns})")
        connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * (columns.count(',') + 1))})", values)
    connection.close()


async def chunks_of(path: Path, behind: Any = None, max_record: int = 2**20, **keys: Any) -> list[Chunk]:
    context = SourceContext("rows", "test", SystemClock(), cursor=behind, max_record=max_record)
    keys = {"table": None if "query" in keys else "t", **keys}
    reader = await Sqlite(path=str(path), **keys).open(context)
    try:
        return [chunk async for chunk in reader.read()]
    finally:
        await reader.close()


async def records_of(path: Path, behind: Any = None, **keys: Any) -> list[Any]:
    return [record for chunk in await chunks_of(path, behind, **keys) for record in chunk.records]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 999, 1000, 1001, 2500])
async def test_every_row_is_read_in_order_and_each_cursor_goes_on_behind_it(path: Path, count: int) -> None:
    fill(path, [(number * 3, f"v{number}") for number in range(count)])
    chunks = await chunks_of(path)
    expected = [{"id": number * 3, "v": f"v{number}"} for number in range(count)]

    assert [record for chunk in chunks for record in chunk.records] == expected
    assert all(len(chunk.records) <= 500 for chunk in chunks)
    for chunk in chunks:
        assert chunk.cursors is not None
        assert chunk.cursors(len(chunk.records) - 1) == chunk.cursor
        middle = len(chunk.records) // 2
        left = [record for record in expected if record["id"] > chunk.records[middle]["id"]]
        assert await records_of(path, chunk.cursors(middle)) == left


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")), unique=True, max_size=30))
@settings(deadline=None, max_examples=40)
async def test_any_unique_column_of_numbers_or_texts_orders_the_rows(
    tmp_path_factory: pytest.TempPathFactory, keys: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("in") / "in.db"
    fill(path, [(key, 1) for key in keys], "k, v")
    records = await records_of(path, cursor="k")

    assert {record["k"] for record in records} == set(keys)
    for at, record in enumerate(records):
        assert await records_of(path, record["k"], cursor="k") == records[at + 1 :]


async def test_a_table_is_read_by_rowid_which_is_no_field(path: Path) -> None:
    fill(path, [(1, "a"), (2, "b")], "x, y")

    assert [(c.cursor, c.records) for c in await chunks_of(path)] == [(2, [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}])]


async def test_a_query_is_read_like_a_table(path: Path) -> None:
    fill(path, [(number, number % 3) for number in range(2000)])
    query = "SELECT id AS key, v, id * 2 AS double FROM t WHERE v = 1 -- and no more"
    records = await records_of(path, query=query, cursor="key")

    assert records[:2] == [{"key": 1, "v": 1, "double": 2}, {"key": 4, "v": 1, "double": 8}]
    assert len(records) == 667
    assert await records_of(path, 1990, query=f"{query[:-14]};", cursor="key") == records[-3:]


@pytest.mark.parametrize("at", [0, 1, 498, 499, 500, 998, 999, 1000, 1001])
async def test_two_rows_with_the_same_cursor_are_refused_wherever_they_meet(path: Path, at: int) -> None:
    fill(path, [(number if number <= at else number - 1, 0) for number in range(1100)], "k, v")

    with pytest.raises(StageError, match=rf"several rows have k = {at}; choose as `cursor`"):
        await records_of(path, cursor="k")


async def test_a_tie_that_appears_after_a_resume_is_refused(path: Path) -> None:
    fill(path, [(1, 0), (2, 0)], "k, v")
    cursor = (await chunks_of(path, cursor="k"))[-1].cursor
    fill(path, [(2, 1)], "k, v")

    with pytest.raises(StageError, match="several rows have k = 2"):
        await chunks_of(path, cursor, cursor="k")


@pytest.mark.parametrize("resumed", [None, 1])
@pytest.mark.parametrize(("value", "said"), [(None, "a row has no k"), (b"x", "a row has a blob as k")])
async def test_rows_without_a_usable_cursor_are_refused(path: Path, resumed: Any, value: Any, said: str) -> None:
    fill(path, [(1, 0), (value, 0)], "k, v")

    with pytest.raises(StageError, match=said):
        await records_of(path, resumed, cursor="k")


async def test_a_column_that_ignores_case_makes_no_ties(path: Path) -> None:
    fill(path, [(text, 0) for text in ("b", "a", "A", "B")], "k TEXT COLLATE NOCASE, v")

    assert [record["k"] for record in await records_of(path, cursor="k")] == ["A", "B", "a", "b"]


async def test_a_row_that_the_cursor_stood_at_may_be_gone(path: Path) -> None:
    fill(path, [(1, "a"), (2, "b"), (3, "c")])
    execute(path, "DELETE FROM t WHERE id = 2")

    assert await records_of(path, 2) == [{"id": 3, "v": "c"}]


async def test_a_row_over_the_largest_record_is_a_bad_record_by_itself(path: Path) -> None:
    fill(path, [(1, "a"), (2, "x" * 2000), (3, b"c")])
    (chunk,) = await chunks_of(path, max_record=1000)

    assert chunk.failed == [1]
    bad = chunk.records[1]
    assert isinstance(bad, Failed)
    assert bad.record == {"rowid": 2}
    assert chunk.position is not None
    assert chunk.position(1) == "rowid=2"
    assert chunk.records[2] == {"id": 3, "v": b"c"}


async def test_large_rows_are_read_a_few_at_a_time(path: Path) -> None:
    fill(path, [(number, "x" * 700_000) for number in range(20)])
    chunks = await chunks_of(path)

    assert [len(chunk.records) for chunk in chunks] == [6, 6, 6, 2]
    assert all(chunk.size >= len(chunk.records) * 700_000 for chunk in chunks)


class Polled(SystemClock):
    """A clock whose sleeps add a row each, until there are enough."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self.rows = rows
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) > self.rows:
            await anyio.sleep_forever()
        fill(self.path, [(100 + len(self.slept), "new")])


async def test_polling_finds_rows_that_come_later(path: Path) -> None:
    fill(path, [(1, "old")])
    clock = Polled(path, 3)
    reader = await Sqlite(path=str(path), table="t", poll="2s").open(SourceContext("rows", "test", clock))
    seen: list[Any] = []
    chunks = reader.read()
    while len(seen) < 4:
        seen += (await anext(chunks)).records
    await reader.close()

    assert [record["id"] for record in seen] == [1, 101, 102, 103]
    assert clock.slept == [2.0, 2.0, 2.0]
    assert reader.progress() == Progress(4, None)


async def test_a_writer_is_not_held_up_between_pages(path: Path) -> None:
    fill(path, [(number, "") for number in range(3000)])
    reader = await Sqlite(path=str(path), table="t").open(SourceContext("rows", "test", SystemClock()))
    chunks = reader.read()
    await anext(chunks)
    fill(path, [(9999, "while it is being read")])
    rest = [record async for chunk in chunks for record in chunk.records]
    await reader.close()

    assert rest[-1] == {"id": 9999, "v": "while it is being read"}


async def test_what_is_missing_is_a_mistake_in_the_config(path: Path) -> None:
    with pytest.raises(ConfigError, match="unable to open"):
        await chunks_of(path)
    fill(path, [])
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"table": "u"}, "no such table: u"),
        ({"table": "t", "cursor": "w"}, "no such column"),
        ({"query": "SELECT nonsense FROM t", "cursor": "id"}, "no such column: nonsense"),
        ({"query": "DELETE FROM t", "cursor": "id"}, "syntax error"),
        ({"query": "SELECT * FROM t; SELECT 1", "cursor": "id"}, "syntax error"),
        ({"query": "SELECT * FROM t"}, "a query needs a cursor"),
        ({"table": "t", "query": "SELECT 1"}, "one of `table` and `query`"),
    )
    for keys, text in mistakes:
        with pytest.raises(ConfigError, match=text):
            await chunks_of(path, **keys)


async def test_a_damaged_file_is_an_error_of_the_state(path: Path) -> None:
    put(path, b"no database" * 1000)

    with pytest.raises(StateError, match="not a database"):
        await chunks_of(path)


async def test_damage_met_while_reading_is_a_storage_error(path: Path) -> None:
    fill(path, [(number, "x" * 500) for number in range(5000)])
    put(path, damaged(path))

    with pytest.raises((StorageError, StateError), match="malformed"):
        await chunks_of(path)


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def damaged(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 65536] = b"\xff" * 65536
    return bytes(content)


async def test_it_never_writes(path: Path) -> None:
    fill(path, [(1, "a")])
    before = bytes_of(path)
    await chunks_of(path)

    assert bytes_of(path) == before


def bytes_of(path: Path) -> bytes:
    return path.read_bytes()


def test_its_identity_is_what_is_read() -> None:
    source = Sqlite(path="a.db", table="t", poll=1.0)

    assert source.identity() == {"path": "a.db", "table": "t", "query": None, "cursor": None}
    assert source.replays()
    assert source.endless()
    assert not Sqlite(path="a.db", table="t").endless()
    assert [name for name, _ in Sqlite(path="a.db", table="t", poll=0.0).problems()] == ["poll"]
