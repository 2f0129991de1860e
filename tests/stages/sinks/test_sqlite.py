import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError, RecordErrors, StageError, StateError, StorageError, Unavailable
from pipeline.stage import Resume, SinkContext
from stages.sinks.sqlite import Sqlite, SqliteWriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.db"


@pytest.fixture
def off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every transaction be done in the connection's thread."""
    monkeypatch.setattr("stages.sqlite_connection.BRIEF", 0.0)


@pytest.fixture
def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what may be brief be done in the thread of the loop, however busy the machine is."""
    monkeypatch.setattr("stages.pace.BRIEF", 100.0)
    monkeypatch.setattr("stages.sqlite_connection.BRIEF", 100.0)


class Flight(msgspec.Struct):
    number: int
    carrier: str
    delay: float | None = None


def context(**keys: Any) -> SinkContext:
    keys = {"lineage": "first", "delivery": "exactly_once", **keys}
    return SinkContext("archive", "flights", SystemClock(), **keys)


def batch(*records: Any, first: int = 0) -> Batch:
    return Batch(list(records), "feed", range(first, first + len(records)))


@asynccontextmanager
async def opened(path: Path, told: SinkContext | None = None, **keys: Any) -> AsyncGenerator[SqliteWriter]:
    keys = {"table": "t", **keys}
    writer = await Sqlite(path=str(path), **keys).open(told or context())
    try:
        yield writer
    finally:
        await writer.close()


def rows(path: Path, sql: str = "SELECT * FROM t ORDER BY rowid") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def prepare(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def errors_of(path: Path, *records: Any, **keys: Any) -> dict[int, str]:
    """Write a batch that has records at fault as the engine does, and return what is said of each."""
    said: dict[int, str] = {}
    async with opened(path, **keys) as writer:
        while True:
            left = [index for index in range(len(records)) if index not in said]
            try:
                await writer.write(batch(*(records[index] for index in left)))
                break
            except RecordErrors as error:
                assert error.errors
                assert not count(path), "something of a failed batch is there"
                said.update({left[index]: str(fault) for index, fault in error.errors.items()})
    assert count(path) == len(records) - len(said)
    return said


def count(path: Path) -> int:
    found = rows(path, "SELECT name FROM sqlite_master WHERE name = 't'")
    return int(rows(path, "SELECT count(*) FROM t")[0][0]) if found else 0


def bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def numbers_kept(path: Path) -> int:
    return int(rows(path, "SELECT count(*) FROM _pipeline_numbers")[0][0])


# --- rows and columns ---


async def test_the_first_records_make_the_table_with_their_types(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(
            batch(
                {"n": 1, "x": 1, "s": "a", "b": b"\0", "t": True, "j": {"k": [1, None]}, "nothing": None, "m": 1},
                {"n": 2, "x": 2.5, "s": "b", "b": None, "t": False, "j": [1], "nothing": None, "m": "one"},
            )
        )

    assert [row[1:3] for row in rows(path, "PRAGMA table_info(t)")] == [
        ("n", "INTEGER"),
        ("x", "REAL"),
        ("s", "TEXT"),
        ("b", "BLOB"),
        ("t", "INTEGER"),
        ("j", "TEXT"),
        ("nothing", ""),
        ("m", ""),
    ]
    assert rows(path) == [
        (1, 1.0, "a", b"\0", 1, '{"k":[1,null]}', None, 1),
        (2, 2.5, "b", None, 0, "[1]", None, "one"),
    ]


async def test_a_new_field_becomes_a_column_and_a_missing_one_is_null(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"a": 1}))
        await writer.write(batch({"a": 2, "b": "x"}, {"b": "y"}, {"A": 4}, first=1))

    assert rows(path) == [(1, None), (2, "x"), (None, "y"), (4, None)]


async def test_typed_records_and_dates_and_decimals_are_written(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch(Flight(1, "UA"), Flight(2, "AA", 3.5)))
        await writer.write(batch(Flight(3, "DL"), {"number": 4, "carrier": "B6", "day": date(2013, 1, 2)}, first=2))
        await writer.write(batch({"number": 5, "day": Decimal("1.50")}, first=4))

    assert rows(path) == [
        (1, "UA", None, None),
        (2, "AA", 3.5, None),
        (3, "DL", None, None),
        (4, "B6", None, "2013-01-02"),
        (5, None, None, "1.50"),
    ]


async def test_typed_records_without_fields_are_named(path: Path) -> None:
    empty = msgspec.defstruct("Empty", [])
    assert await errors_of(path, {"v": 1}, empty()) == {1: "the record has no fields"}
    async with opened(path) as writer:
        with pytest.raises(RecordErrors) as caught:
            await writer.write(batch(empty(), empty(), first=1))
    assert {index: str(error) for index, error in caught.value.errors.items()} == {
        0: "the record has no fields",
        1: "the record has no fields",
    }


async def test_fields_are_known_by_name_in_any_order_and_number(path: Path) -> None:
    await errors_of(path, {"a": 1, "b": "x"}, {"b": "y", "a": 2}, {"b": "z"}, {"a": 3, "b": None})
    assert rows(path, "SELECT a, b FROM t ORDER BY rowid") == [(1, "x"), (2, "y"), (None, "z"), (3, None)]


async def test_columns_select_the_fields(path: Path) -> None:
    async with opened(path, columns=["b", "a"]) as writer:
        await writer.write(batch({"a": 1, "b": 2, "c": 3}, {"a": 4}))
        await writer.write(batch(msgspec.defstruct("R", [("a", int), ("b", int), ("z", int)])(5, 6, 7), first=2))

    assert rows(path) == [(2, 1), (None, 4), (6, 5)]


async def test_names_are_only_ever_names(path: Path) -> None:
    odd = 'x" INTEGER); DROP TABLE t; --'
    async with opened(path, table='t"x') as writer:
        await writer.write(batch({odd: 1, "select": 2}))

    assert rows(path, 'SELECT * FROM "t""x"') == [(1, 2)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (1, "007", [1, "007"]),
        (1.5, "2", [1.5, "2"]),
        ("a", 5, ["a", 5]),
        (0.5, 2**60 + 1, [0.5, 2**60 + 1]),
        (1, "abc", [1, "abc"]),
        (1, 2.5, [1, 2.5]),
        (2.5, 3, [2.5, 3]),
        ("a", True, ["a", 1]),
        (1, b"1", [1, b"1"]),
        (1, " 7 ", [1, " 7 "]),
        (1, ".5e1", [1, ".5e1"]),
        (1, "1_0", [1, "1_0"]),
    ],
)
async def test_a_value_that_the_column_would_change_widens_it(
    path: Path, first: Any, second: Any, expected: list[Any]
) -> None:
    async with opened(path, mode="upsert", key="k") as writer:
        await writer.write(batch({"k": "a", "v": first}, {"k": "gone", "v": first}))
        prepare(path, "DELETE FROM t WHERE k = 'gone'")
        await writer.write(batch({"k": "b", "v": second}, first=2))
        await writer.write(batch({"k": "a", "v": first}, first=3))

    kept = [row[0] for row in rows(path, "SELECT v FROM t ORDER BY rowid")]
    assert kept == expected
    assert [type(value) for value in kept] == [type(value) if value is not True else int for value in expected] or (
        kept == [2.5, 3.0]
    )
    assert rows(path, "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = 't'") == [(1,)]


async def test_widening_keeps_row_ids(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}, {"v": 2}, {"v": 3}))
        prepare(path, "DELETE FROM t WHERE v = 2")
        await writer.write(batch({"v": "04"}, first=3))

    assert rows(path, "SELECT rowid, v FROM t ORDER BY rowid") == [(1, 1), (3, 3), (4, "04")]


async def test_somebody_elses_table_is_not_rebuilt_but_the_record_fails(path: Path) -> None:
    prepare(path, "CREATE TABLE t (v INTEGER CHECK (v <> 13), w TEXT)")

    assert await errors_of(path, {"v": 1, "w": "x"}, {"v": "007", "w": "x"}, {"v": 1, "w": 5}) == {
        1: "field 'v': a column of type 'INTEGER' would change '007'",
        2: "field 'w': a column of type 'TEXT' would change 5",
    }


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcA"),
            st.none()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False)
            | st.text(st.characters(codec="utf-8"))
            | st.sampled_from(["1", "007", " 1.5", "1e3", "0x1", "-", "inf"])
            | st.binary(),
            min_size=1,
        ).filter(lambda record: not {"a", "A"} <= record.keys()),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
async def test_whatever_is_written_reads_back_equal_however_it_is_batched(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], size: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "out.db"
    async with opened(path) as writer:
        for first in range(0, len(records), size):
            await writer.write(batch(*records[first : first + size], first=first))

    fields = [name.lower() for name in (row[1] for row in rows(path, "PRAGMA table_info(t)"))]
    folded = [{name.lower(): value for name, value in record.items()} for record in records]
    assert rows(path) == [tuple(map(record.get, fields)) for record in folded]


# --- which thread does what ---


async def threads_of(path: Path, batches: list[list[Any]], **keys: Any) -> list[dict[str, bool]]:
    """Write batches and return, for each, the kinds of its statements and whether the loop's thread ran them."""
    loop = threading.get_ident()
    seen: dict[str, bool] = {}

    def trace(sql: str) -> None:
        seen[" ".join(sql.split()[:2])] = threading.get_ident() == loop

    said: list[dict[str, bool]] = []
    async with opened(path, **keys) as writer:
        await writer._connection.read(lambda connection: connection.set_trace_callback(trace))  # pyright: ignore[reportPrivateUsage]
        for number, records in enumerate(batches):
            seen.clear()
            with suppress(RecordErrors):
                await writer.write(batch(*records, first=1000 * number))
            said.append(dict(seen))
    return said


@pytest.mark.usefixtures("on_the_loop")
async def test_batches_are_written_by_the_loop_once_the_table_is_there(path: Path) -> None:
    said = await threads_of(path, [[{"n": 1}], [{"n": 2}], [{"n": 3}] * 600], mode="upsert", key="n")

    assert [each["BEGIN IMMEDIATE"] for each in said] == [False, True, True]
    assert [each["COMMIT"] for each in said] == [False, True, True]
    assert not said[0]["CREATE TABLE"]
    assert not said[0]["CREATE UNIQUE"]


@pytest.mark.usefixtures("on_the_loop")
async def test_a_table_is_changed_and_searched_for_what_is_at_fault_by_the_thread(path: Path) -> None:
    said = await threads_of(
        path, [[{"n": 1}], [{"n": 2, "x": 1}], [{"n": "3"}], [{"n": "04"}], [{"n": 5, "x": 2**63}], [{"n": 6}]]
    )

    assert not said[1]["ALTER TABLE"]
    assert not said[2]["DROP TABLE"]
    assert "DROP TABLE" not in said[3]
    assert [said[number]["COMMIT"] for number in (0, 1, 2, 3, 5)] == [False, False, False, True, True]
    # Begun by the loop, found to be more than brief, and done anew: what is at fault is named as ever.
    assert not said[4]["BEGIN IMMEDIATE"]
    assert rows(path) == [(1, None), (2, 1), ("3", None), ("04", None), (6, None)]


@pytest.mark.usefixtures("on_the_loop")
async def test_whoever_is_fenced_off_hears_it_from_the_loop_too(path: Path) -> None:
    async with opened(path) as older:
        await older.write(batch({"v": 1}))
        await older.write(batch({"v": 2}, first=1))
        async with opened(path, context(run=2)):
            with pytest.raises(StageError, match="fenced"):
                await older.write(batch({"v": 3}, first=2))

    assert rows(path) == [(1,), (2,)]


# --- records at fault ---


async def test_values_that_sqlite_cannot_hold_are_record_errors(path: Path) -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    said = await errors_of(
        path,
        {"v": 1},
        {"v": 2**63},
        {"v": "\ud800"},
        {"v": float("nan")},
        {"v": object()},
        {"v": {"x": float("inf")}},
        {"v": deep},
        "text",
        {},
        {"v": -(2**63)},
        {"v": 10**5000},
        {"a\0b": 1},
        {"x\ud800": 1},
        {3: 1},
        {"v": 1, "V": 2},
    )

    assert set(said) == set(range(1, 15)) - {9}
    assert said[3] == "field 'v': SQLite has no nan, it would store NULL"
    assert said[7] == "expected a record with fields, not a str"
    assert said[8] == "the record has no fields"


async def test_integers_over_64_bits_and_lone_surrogates_are_named(path: Path) -> None:
    assert await errors_of(path, {"v": 1, "w": "x"}, {"v": 2**63, "w": "x"}, {"v": 2, "w": "\ud800"}) == {
        1: "field 'v': 9223372036854775808 is over 64 bits",
        2: "field 'w': the text holds a lone surrogate, which UTF-8 has no bytes for",
    }


@pytest.mark.parametrize("clause", ["", " ON CONFLICT ROLLBACK"])
async def test_a_constraint_names_its_record_and_the_others_can_be_written(path: Path, clause: str) -> None:
    prepare(path, f"CREATE TABLE t (id INTEGER PRIMARY KEY{clause}, v TEXT NOT NULL)")

    said = await errors_of(path, {"id": 1, "v": "a"}, {"id": 1, "v": "b"}, {"id": 2, "v": "c"})

    assert said == {1: "UNIQUE constraint failed: t.id"}


@settings(deadline=None, max_examples=30)
@given(
    width=st.sampled_from([1, 2, 7, 249, 251, 501]),
    count=st.integers(1, 1_100),
    bad=st.sets(st.integers(0, 1_099), max_size=3),
)
async def test_rows_that_go_in_one_statement_are_as_those_that_go_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, width: int, count: int, bad: set[int]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "out.db"
    fields = [f"c{place}" for place in range(width)]
    prepare(path, f"CREATE TABLE t ({', '.join(fields)}, CHECK (c0 >= 0))")
    records = [dict.fromkeys(fields, -1 if n in bad else n) for n in range(count)]
    said = await errors_of(path, *records)
    assert set(said) == {n for n in bad if n < count}
    assert [row[-1] for row in rows(path)] == [n for n in range(count) if n not in bad]


async def test_checks_strict_types_and_triggers_name_their_records(path: Path) -> None:
    prepare(
        path,
        "CREATE TABLE t (n INT CHECK (n > 0), s TEXT NOT NULL, a ANY) STRICT",
        "CREATE TRIGGER no BEFORE INSERT ON t WHEN new.s = 'bad' BEGIN SELECT RAISE(ABORT, 'bad one'); END",
    )

    said = await errors_of(
        path,
        {"n": 1, "s": "x", "a": "007"},
        {"n": -1, "s": "x"},
        {"n": 2},
        {"n": "abc", "s": "x"},
        {"n": 3, "s": "bad"},
    )

    assert set(said) == {1, 2, 3, 4}
    assert said[4] == "bad one"
    assert rows(path) == [(1, "x", "007")]


async def test_a_missing_field_takes_the_default_of_the_table_in_any_batch(path: Path) -> None:
    prepare(path, "CREATE TABLE t (a INTEGER, b TEXT DEFAULT 'none')")
    async with opened(path) as writer:
        await writer.write(batch({"a": 1}, {"a": 2, "b": "x"}, {"a": 3, "b": None}, {"a": 4}))

    assert rows(path) == [(1, "none"), (2, "x"), (3, None), (4, "none")]


async def test_unknown_fields_fail_where_the_table_may_not_change(path: Path) -> None:
    prepare(path, "CREATE TABLE t (a INTEGER)")

    said = await errors_of(path, {"a": 1}, {"a": 2, "b": 3}, create=False)

    assert said == {1: "unknown field 'b': table 't' has no such column"}


async def test_fields_beyond_the_most_columns_are_record_errors(path: Path) -> None:
    wide = {f"c{number}": number for number in range(1999)}

    said = await errors_of(path, {**wide, "a": 1}, {"z": 1})

    assert said == {1: "field 'z': table 't' would have over 2000 columns"}


# --- upsert, overwrite ---


async def test_upsert_replaces_by_key_and_the_last_record_wins(path: Path) -> None:
    async with opened(path, mode="upsert", key=["id", "day"]) as writer:
        await writer.write(batch({"id": 1, "day": "mon", "v": 1}, {"id": 1, "day": "tue", "v": 2}))
        await writer.write(
            batch({"id": 1, "day": "mon", "v": 3}, {"id": 1, "day": "mon", "v": 4}, {"id": 1, "day": "tue", "w": 5})
        )

    assert rows(path) == [(1, "mon", 4, None), (1, "tue", 2, 5)]


async def test_upsert_refuses_records_without_key(path: Path) -> None:
    said = await errors_of(path, {"id": 1, "v": 1}, {"id": None, "v": 1}, {"v": 1}, mode="upsert", key="id")

    assert set(said) == {1, 2}
    assert said[2] == "field 'id' is missing; it is part of the key"


async def test_upsert_uses_the_unique_index_that_is_there(path: Path) -> None:
    prepare(path, "CREATE TABLE t (id TEXT PRIMARY KEY, v INTEGER)")
    async with opened(path, mode="upsert", key="id", create=False) as writer:
        await writer.write(batch({"id": "a", "v": 1}))
        await writer.write(batch({"id": "a", "v": 2}))

    assert rows(path) == [("a", 2)]


async def test_upsert_without_unique_index_is_refused_when_it_may_not_be_made(path: Path) -> None:
    prepare(path, "CREATE TABLE t (id TEXT, v INTEGER)")

    with pytest.raises(ConfigError, match="table 't' has no unique index on 'id'"):
        await Sqlite(path=str(path), table="t", mode="upsert", key="id", create=False).open(context())


async def test_upsert_on_a_table_with_doubles_is_refused_and_changes_nothing(path: Path) -> None:
    prepare(path, "CREATE TABLE t (id TEXT, v INTEGER)", "INSERT INTO t VALUES ('a', 1), ('a', 2)")

    with pytest.raises(ConfigError, match="table 't' has rows with the same 'id'"):
        await Sqlite(path=str(path), table="t", mode="upsert", key="id").open(context())
    assert rows(path, "SELECT name FROM sqlite_master") == [("t",)]

    async with opened(path, mode="upsert", key="v") as writer:
        await writer.write(batch({"id": "b", "v": 2}))
    assert rows(path) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("key", ["id", ["ID", "kind"]])
async def test_a_dry_run_of_upsert_refuses_doubles_as_the_run_does(path: Path, key: Any) -> None:
    prepare(path, "CREATE TABLE t (id TEXT, kind TEXT, v INTEGER)")
    prepare(path, "INSERT INTO t VALUES ('a', 'x', 1), (NULL, 'x', 2), (NULL, 'x', 3), ('b', 'x', 4), ('b', 'y', 5)")
    prepare(path, "DELETE FROM t WHERE kind = 'y'" if key == "id" else "SELECT 1")
    async with opened(path, context(dry=True), mode="upsert", key=key):
        pass
    prepare(path, "INSERT INTO t VALUES ('a', 'x', 6)")
    before = bytes_of(path)

    refusals: list[str] = []
    for dry in (True, False):
        with pytest.raises(ConfigError, match=r"table 't' has rows with the same .*; take out the doubles") as caught:
            await Sqlite(path=str(path), table="t", mode="upsert", key=key).open(context(dry=dry))
        refusals.append(str(caught.value))
        assert dry is False or bytes_of(path) == before
    assert refusals[0] == refusals[1]


async def test_overwrite_empties_the_table_at_the_first_run_of_a_lineage_only(path: Path) -> None:
    prepare(path, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (99)")
    async with opened(path, mode="overwrite") as writer:
        await writer.write(batch({"v": 1}))
    async with opened(path, context(run=2), mode="overwrite") as writer:
        await writer.write(batch({"v": 2}, first=1))
    assert rows(path) == [(1,), (2,)]

    async with opened(path, context(lineage="second", fresh=True), mode="overwrite") as writer:
        assert not writer.held()
    assert rows(path) == []


def test_keys_that_contradict_each_other_are_problems() -> None:
    def keys_at_fault(**keys: Any) -> list[str]:
        keys = {"path": "x.db", "table": "t", **keys}
        return [name for name, _ in Sqlite(**keys).problems()]

    assert keys_at_fault(mode="upsert") == ["key"]
    assert keys_at_fault(key="id") == ["key"]
    assert keys_at_fault(table="sqlite_x") == ["table"]
    assert keys_at_fault(table="_pipeline_numbers") == ["table"]
    assert keys_at_fault(mode="upsert", key="id", columns=["a"]) == ["columns"]
    assert keys_at_fault(mode="upsert", key="id", columns=["a", "id"]) == []


def test_it_says_that_its_transactions_resume() -> None:
    sink = Sqlite(path="x.db", table="t")

    assert sink.resumes() is Resume.TRANSACTION
    assert sink.durable()
    assert sink.identity() == {"path": "x.db", "table": "t"}


# --- resuming ---


async def crash(writer: SqliteWriter) -> None:
    """Let go of the database as a killed process would: without a seal, a prune, or a word."""
    await writer.close()


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    crash_after=st.integers(0, 6),
    frontier=st.integers(0, 30),
    again=st.integers(1, 7),
)
@settings(max_examples=40, deadline=None)
async def test_after_a_crash_each_record_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], crash_after: int, frontier: int, again: int
) -> None:
    path = tmp_path_factory.mktemp("crash") / "out.db"
    records = [{"n": number} for number in range(sum(sizes))]
    writer = await Sqlite(path=str(path), table="t").open(context())
    done = 0
    for size in sizes[:crash_after]:
        await writer.write(batch(*records[done : done + size], first=done))
        done += size
    await crash(writer)
    frontier = min(frontier, done)

    async with opened(path, context(run=2, held_from={"feed": frontier})) as writer:
        held = writer.held()
        for first in range(frontier, len(records), again):
            part = batch(*records[first : first + again], first=first)
            left = part.pick([i for i, origin in enumerate(part.origins()) if origin not in held])
            await writer.write(left)

    assert [row[0] for row in rows(path)] == list(range(len(records)))


async def test_it_holds_the_exact_numbers_and_children_it_was_given(path: Path) -> None:
    filtered = Batch([{"v": 1}, {"v": 2}, {"v": 3}], "feed", [3, 7, 4])
    exploded = Batch([{"v": 1}, {"v": 2}, {"v": 3}], "feed", [9, 9, 10], ["0", "2.1", ""])
    joined = Batch([{"v": 1}, {"v": 2}, {"v": 3}], ["feed", "other", "feed"], [20, 0, 21])
    writer = await Sqlite(path=str(path), table="t").open(context())
    for some in (filtered, exploded, joined):
        await writer.write(some)
    await crash(writer)

    async with opened(path, context(held_from={"feed": 4, "other": 0})) as writer:
        held = writer.held()
    present = [
        (number, child) for number in range(25) for child in ("", "0", "1", "2.1") if ("feed", number, child) in held
    ]
    assert present == [(4, ""), (7, ""), (9, "0"), (9, "2.1"), (10, ""), (20, ""), (21, "")]
    assert ("other", 0, "") in held
    assert ("other", 1, "") not in held


async def test_pruning_forgets_numbers_and_an_older_state_is_refused_from_then_on(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}, {"v": 2}))
        await writer.write(batch({"v": 3}, {"v": 4}, first=2))
        await writer.seal()
        await writer.prune({"feed": 2})
    assert numbers_kept(path) == 1

    with pytest.raises(StateError, match="source 'feed' is at record 1, the database at 2"):
        await Sqlite(path=str(path), table="t").open(context(run=2, held_from={"feed": 1}))
    async with opened(path, context(run=2, held_from={"feed": 2})) as writer:
        assert list(writer.held().numbers("feed")) == [(2, 4)]
    async with opened(path, context(run=2, held_from={"feed": 1}, repeat=True)) as writer:
        assert list(writer.held().numbers("feed")) == [(2, 4)]


async def test_a_state_of_an_older_run_is_refused(path: Path) -> None:
    async with opened(path, context(run=7)):
        pass

    with pytest.raises(StateError, match="its run is 6, the database saw run 7"):
        await Sqlite(path=str(path), table="t").open(context(run=6))


async def test_a_new_lineage_is_refused_where_an_older_one_left_records(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))

    with pytest.raises(StateError, match="wrote with another state file") as caught:
        await Sqlite(path=str(path), table="t").open(context(lineage="second"))
    assert caught.value.exit_code == 5
    with pytest.raises(StateError, match=r"of an earlier lineage .* mode: overwrite or upsert.*--repeat"):
        await Sqlite(path=str(path), table="t").open(context(lineage="second", fresh=True))
    async with opened(path, context(lineage="second", repeat=True)) as writer:
        await writer.write(batch({"v": 1}))
    assert rows(path) == [(1,), (1,)]
    with pytest.raises(StateError, match="a newer state has written here since"):
        await Sqlite(path=str(path), table="t").open(context(run=2))


async def test_a_new_lineage_may_upsert_or_begin_when_nothing_is_left(path: Path) -> None:
    async with opened(path, mode="upsert", key="v") as writer:
        await writer.write(batch({"v": 1}))
    async with opened(path, context(lineage="second"), mode="upsert", key="v") as writer:
        await writer.write(batch({"v": 1}))
    assert rows(path) == [(1,)]

    prepare(path, "DELETE FROM t")
    async with opened(path, context(lineage="third")):
        pass


async def test_other_pipelines_and_sinks_in_the_same_database_do_not_matter(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        told = SinkContext("other", "flights", SystemClock(), lineage="second", delivery="exactly_once")
        async with opened(path, told) as second:
            assert not second.held()
            await second.write(batch({"v": 2}))
        await writer.write(batch({"v": 3}, first=1))

    assert rows(path) == [(1,), (2,), (3,)]


async def test_a_table_with_rows_that_nobody_claims_is_appended_to(path: Path) -> None:
    prepare(path, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)")
    async with opened(path) as writer:
        await writer.write(batch({"v": 2}))

    assert rows(path) == [(1,), (2,)]


async def test_whoever_opens_later_fences_the_earlier_one_off(path: Path) -> None:
    async with opened(path) as older:
        await older.write(batch({"v": 1}))
        async with opened(path, context(run=2)) as newer:
            with pytest.raises(StageError, match="fenced"):
                await older.write(batch({"v": 2}, first=1))
            with pytest.raises(StageError, match="fenced"):
                await older.prune({"feed": 1})
            with pytest.raises(StageError, match="fenced"):
                await older.seal()
            await newer.write(batch({"v": 3}, first=1))

    assert rows(path) == [(1,), (3,)]


async def test_at_least_once_keeps_no_numbers_and_holds_nothing(path: Path) -> None:
    told = context(delivery="at_least_once")
    async with opened(path, told) as writer:
        await writer.write(batch({"v": 1}))
    async with opened(path, told) as writer:
        assert not writer.held()
    assert numbers_kept(path) == 0


async def test_without_a_state_file_nothing_of_ours_is_in_the_database(path: Path) -> None:
    async with opened(path, context(saved=False)) as writer:
        await writer.write(batch({"v": 1}))
        await writer.seal()
        await writer.prune({"feed": 1})

    assert rows(path, "SELECT name FROM sqlite_master") == [("t",)]


async def test_a_database_that_knows_nothing_of_a_resumed_run_is_said(path: Path) -> None:
    said: list[str] = []
    async with opened(path, context(run=2, held_from={"feed": 5}, warn=said.append)):
        pass

    assert len(said) >= 1
    assert "knows nothing of the records written in earlier runs" in said[0]


async def test_another_database_than_the_last_run_wrote_to_is_refused_and_left_alone(path: Path) -> None:
    resumed = context(run=2, position="its own database", held_from={"feed": 5})
    prepare(path, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)")
    before = bytes_of(path)
    with pytest.raises(StateError, match="not the database that the last run wrote to"):
        async with opened(path, resumed):
            pass
    assert bytes_of(path) == before
    async with opened(path, context(run=2, position="its own database", held_from={"feed": 5}, repeat=True)) as writer:
        await writer.write(batch({"v": 2}, first=5))


async def test_a_table_that_is_gone_with_its_records_is_refused(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
    prepare(path, "DROP TABLE t")
    with pytest.raises(StateError, match="table 't', which holds earlier records, is gone"):
        async with opened(path, context(run=2)):
            pass


async def test_a_look_at_a_database_whose_writer_was_killed_finds_what_was_committed(
    path: Path, tmp_path: Path
) -> None:
    prepare(path, "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('committed')")
    killed = tmp_path / "killed.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?)", [("half done" * 100,)] * 1000)
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{killed}{suffix}")
        connection.execute("ROLLBACK")
    assert killed.with_name("killed.db-journal").stat().st_size > 0
    async with opened(killed, context(dry=True)):
        pass
    assert rows(killed, "SELECT v FROM t") == [("committed",)]


async def test_a_dry_run_changes_nothing(path: Path) -> None:
    async with opened(path, context(dry=True)):
        assert not bytes_of(path)
    prepare(path, "CREATE TABLE t (v INTEGER)", "INSERT INTO t VALUES (1)")
    before = bytes_of(path)
    async with opened(path, context(dry=True), mode="overwrite"):
        pass
    assert bytes_of(path) == before


async def test_a_dry_run_leaves_nothing_beside_a_database_with_a_log(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
    assert os.listdir(path.parent) == ["out.db"]
    async with opened(path, context(dry=True, run=2)):
        pass
    assert os.listdir(path.parent) == ["out.db"]


async def test_a_dry_run_sees_what_is_only_in_the_log_of_a_database(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        link = path.with_name("link.db")
        os.symlink(path, link)
        before = sorted(os.listdir(path.parent))
        for named in (path, link):
            with pytest.raises(StateError, match="holds records"):
                await Sqlite(path=str(named), table="t").open(context(dry=True, lineage="second"))
        assert sorted(os.listdir(path.parent)) == before


async def test_a_refusal_makes_no_database(path: Path) -> None:
    with pytest.raises(StateError, match="not the database that the last run wrote to"):
        await Sqlite(path=str(path), table="t").open(context(run=2, position={}))

    assert os.listdir(path.parent) == []


async def test_a_refusal_changes_nothing(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
    prepare(path, "PRAGMA journal_mode = DELETE")
    before = bytes_of(path)

    with pytest.raises(StateError):
        await Sqlite(path=str(path), table="t").open(context(lineage="second"))

    assert bytes_of(path) == before


# --- cancelling ---


async def test_a_write_that_is_cancelled_while_it_waits_for_the_lock_leaves_nothing(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with anyio.move_on_after(0.02) as scope:
            await writer.write(batch({"v": 2}, first=1))
        assert scope.cancelled_caught
        other.execute("ROLLBACK")
        other.close()
        await writer.write(batch({"v": 3}, first=1))

    assert rows(path) == [(1,), (3,)]


# From a cancellation before the write has begun to none before it has ended.
_TURNS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 10**9)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep everybody else from writing to a database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("where", ["off_the_loop", "on_the_loop"])
@pytest.mark.parametrize("native", [True, False])
async def test_what_is_cancelled_is_not_there_and_what_is_there_was_not_cancelled(
    path: Path, native: bool, where: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(where)
    written: list[int] = []
    async with opened(path) as writer:

        async def write(number: int) -> None:
            await writer.write(batch({"v": number}, first=number))
            written.append(number)

        async def turns_of_the_loop(number: int) -> None:
            for _ in range(_TURNS[number % len(_TURNS)]):
                if number in written:
                    return
                await asyncio.sleep(0)

        async def cut_short(number: int) -> None:
            if native:
                task = asyncio.ensure_future(write(number))
                await turns_of_the_loop(number)
                task.cancel()
                await asyncio.wait([task])
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(write, number)
                    await turns_of_the_loop(number)
                    group.cancel_scope.cancel()

        for number in range(60):
            await cut_short(number)
        # However slow the loop is, this one is not committed before it is cancelled.
        with locked(path):
            await cut_short(0)

        await writer.write(batch({"v": 60}, first=60))

    assert [row[0] for row in rows(path)] == [*written, 60]
    assert len(written) >= 5


async def test_a_write_that_is_cancelled_before_its_commit_is_rolled_back(path: Path) -> None:
    prepare(path, "CREATE TABLE t (v INTEGER)", "CREATE TRIGGER hold AFTER INSERT ON t BEGIN SELECT hold(); END")
    loop = asyncio.get_running_loop()
    inserted = asyncio.Event()
    go_on = threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(inserted.set)
        go_on.wait(10)

    async with opened(path) as writer:
        await writer._connection.read(lambda connection: connection.create_function("hold", 0, hold))  # pyright: ignore[reportPrivateUsage]
        task = asyncio.ensure_future(writer.write(batch({"v": 1})))
        await inserted.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        await asyncio.wait([task])

    assert task.cancelled()
    assert rows(path) == []


@pytest.mark.usefixtures("off_the_loop")
async def test_a_cancellation_that_comes_after_the_commit_comes_at_the_next_wait(
    path: Path,
) -> None:
    committed = threading.Event()

    async with opened(path) as writer:
        await writer.write(batch({"v": 0}))
        ended: list[str] = []

        async def write() -> None:
            await writer.write(batch({"v": 1}, first=1))
            ended.append("written")
            await asyncio.sleep(10)
            ended.append("slept")

        task = asyncio.ensure_future(write())
        await asyncio.sleep(0)
        # The loop is held up until the thread has committed: the task can't have heard of it.
        while count(path) < 2:
            committed.wait(0.001)
        task.cancel()
        await asyncio.wait([task])

    assert task.cancelled()
    assert ended == ["written"]


# --- trouble ---


async def test_a_locked_database_is_unavailable_and_can_be_written_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.sqlite_connection._BUSY_TURNS", 1)
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await writer.write(batch({"v": 2}, first=1))
        other.execute("ROLLBACK")
        other.close()
        await writer.write(batch({"v": 2}, first=1))

    assert rows(path) == [(1,), (2,)]


async def test_a_full_disk_is_a_storage_error_and_leaves_nothing(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": "x"}))
        limit = "PRAGMA max_page_count = 8"
        await writer._connection.read(lambda connection: connection.execute(limit).fetchall())  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(StorageError, match="full"):
            await writer.write(batch(*({"v": "y" * 1000} for _ in range(100)), first=1))

    assert rows(path) == [("x",)]


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_damaged_file_is_an_error_of_the_state(path: Path, content: bytes) -> None:
    put(path, content)

    with pytest.raises(StateError) as caught:
        await Sqlite(path=str(path), table="t").open(context())

    assert "stage 'archive' (sink sqlite)" in str(caught.value)
    assert bytes_of(path) == content


async def test_a_missing_folder_or_table_is_a_mistake_in_the_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unable to open"):
        await Sqlite(path=str(tmp_path / "no" / "out.db"), table="t").open(context())
    with pytest.raises(ConfigError, match="unable to open"):
        await Sqlite(path=str(tmp_path / "out.db"), table="t", create=False).open(context())
    prepare(tmp_path / "out.db", "CREATE TABLE other (a)")
    with pytest.raises(ConfigError, match="no table 't'"):
        await Sqlite(path=str(tmp_path / "out.db"), table="t", create=False).open(context())


async def test_a_file_may_be_called_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(Path(":memory:")) as writer:
        await writer.write(batch({"v": 1}))

    assert stat.S_ISREG(os.stat(tmp_path / ":memory:").st_mode)


async def test_a_table_dropped_under_us_is_an_error_of_the_stage_or_made_anew(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        prepare(path, "DROP TABLE t")
        with pytest.raises(StageError, match="no such table"):
            await writer.write(batch({"v": 2}, first=1))


async def test_closing_twice_is_allowed(path: Path) -> None:
    writer = await Sqlite(path=str(path), table="t").open(context())
    await writer.close()
    await writer.close()


def test_the_process_ends_though_a_sink_was_left_open(tmp_path: Path) -> None:
    code = """
import asyncio
from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.stage import SinkContext
from stages.sinks.sqlite import Sqlite

async def main():
    writer = await Sqlite(path="out.db", table="t").open(SinkContext("s", "p", SystemClock(), lineage="l"))
    await writer.write(Batch([{"v": 1}], "feed", [0]))
    raise SystemExit(9)

asyncio.run(main())
"""
    root = str(Path(__file__).parents[3])
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, timeout=20, check=False
    )

    assert ended.returncode == 9
    assert rows(tmp_path / "out.db") == [(1,)]


async def test_sealing_syncs_the_log_once_and_only_when_something_was_written(path: Path) -> None:
    async with opened(path) as writer:
        await writer.write(batch({"v": 1}))
        seen: list[str] = []
        trace: Any = seen.append
        await writer._connection.read(lambda connection: connection.set_trace_callback(trace))  # pyright: ignore[reportPrivateUsage]
        await writer.seal()
        await writer.seal()
        await writer.write(batch({"v": 2}, first=1))

    def place(word: str) -> int:
        return next(index for index, sql in enumerate(seen) if word in sql)

    assert place("= FULL") < place("BEGIN") < place("sealed") < place("COMMIT") < place("= NORMAL") < place("INSERT")
    assert sum("= FULL" in sql for sql in seen) == 1
