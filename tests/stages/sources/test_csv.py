"""Delimited text: types, quoting, bad rows, and where they lie."""

import csv
import io
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from stages.sources.csv import Csv
from tests.stages.sources.reading import (
    check_resumes,
    read_chunks,
    read_in_pieces,
    read_records,
    read_seen,
    seen_in,
    write,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_rows_are_records_of_the_header_with_their_positions(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", 'a,b\n1,x\r\n\n2,"y\nz"\n3,"say ""hi"""')
    assert await read_seen(Csv(path=path)) == [
        ({"a": "1", "b": "x"}, f"{path}:2 (byte 4)"),
        ({"a": "2", "b": "y\nz"}, f"{path}:4 (byte 10)"),
        ({"a": "3", "b": 'say "hi"'}, f"{path}:6 (byte 18)"),
    ]


@pytest.mark.parametrize("data", ["", "\n", "a,b\n", "a,b", '"a\nc",b\n\n'])
async def test_a_file_without_rows_gives_no_records_and_no_error(tmp_path: Path, data: str) -> None:
    assert await read_chunks(Csv(path=write(tmp_path, "in.csv", data))) == []


async def test_types_and_null_values_make_values_of_texts(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", "i,f,t,s\n1,2.5,true,NA\n-7,NA,0,x\nNA,1e3,False,1\n")
    types: Any = {"i": int, "f": "float", "t": bool}
    assert await read_records(Csv(path=path, types=types, null_values=["NA"])) == [
        {"i": 1, "f": 2.5, "t": True, "s": None},
        {"i": -7, "f": None, "t": False, "s": "x"},
        {"i": None, "f": 1000.0, "t": False, "s": "1"},
    ]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "abc"),
        ("int", ""),
        ("int", "1.5"),
        ("int", "1_000"),
        ("int", "9" * 5000),
        ("float", "nan"),
        ("float", "-Infinity"),
        ("float", "1e999"),
        ("float", "1_0.5"),
        ("bool", "yes"),
    ],
)
async def test_a_value_that_is_not_of_its_type_makes_its_record_bad_and_is_named(
    tmp_path: Path, kind: Any, text: str
) -> None:
    path = write(tmp_path, "in.csv", f"n,v\n1,1\n2,{text}\n3,0\n")
    first, bad, last = await read_seen(Csv(path=path, types={"v": kind}))
    assert first[0]["n"] == "1" and last[0]["n"] == "3"
    assert bad[0][1].startswith(f"2,{text[:50]}") and f"field 'v': {text[:50]!r}"[:-1] in bad[0][2]
    assert bad[0][2].endswith(f"is not of type {kind}")
    assert bad[1] == f"{path}:3 (byte 8)"


async def test_a_row_of_another_width_is_bad(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", "a,b\n1,2\n3\n4,5,6\n7,8\n")
    good, short, long, last = await read_records(Csv(path=path))
    assert (good, last) == ({"a": "1", "b": "2"}, {"a": "7", "b": "8"})
    assert short == ("bad", "3", "1 field; the header has 2")
    assert long == ("bad", "4,5,6", "3 fields; the header has 2")


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('1,"open\n2,x\n', '1,"open'),
        ('1,"open\n2,x\n3,"y"\n4,z\n', '1,"open'),
        ('1,"shut"again\n2,x\n', '1,"shut"again'),
        ('1,"two\nlines",3\n2,x\n', '1,"two'),
        ('1,"\n2,x\n', '1,"'),
        ('"1,open\n2,x\n', '"1,open'),
    ],
)
async def test_a_field_not_properly_closed_makes_only_its_first_line_bad(tmp_path: Path, text: str, bad: str) -> None:
    path = write(tmp_path, "in.csv", "a,b\n0,w\n" + text)
    seen = await read_seen(Csv(path=path))
    assert [record for record, _ in seen[:1]] == [{"a": "0", "b": "w"}]
    assert seen[1][0][:2] == ("bad", bad) and seen[1][1] == f"{path}:3 (byte 8)"
    # The line behind is read as any line, whatever it was meant to be.
    assert seen[2][1] == f"{path}:4 (byte {9 + len(bad)})"
    assert {"a": "2", "b": "x"} in [record for record, _ in seen]


@pytest.mark.parametrize("bad", [b"1,\x00", b"1,\xff", b"1,a\rb", b'1,"\xff"'])
async def test_a_row_that_is_no_text_is_bad_and_its_neighbours_are_untouched(tmp_path: Path, bad: bytes) -> None:
    path = write(tmp_path, "in.csv", b"a,b\n0,w\n" + bad + b"\n2,x\n")
    first, failed, last = await read_seen(Csv(path=path))
    assert (first[0]["a"], failed[0][0], last[0]["a"]) == ("0", "bad", "2")
    assert failed[1] == f"{path}:3 (byte 8)"


async def test_a_field_may_be_as_large_as_a_record(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", "a\n" + "x" * 500_000 + '\n"' + "y\n" * 200_000 + '"\n')
    first, second = await read_records(Csv(path=path))
    assert (len(first["a"]), len(second["a"])) == (500_000, 400_000)


async def test_a_record_larger_than_allowed_is_bad_in_its_first_line_only(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", 'a\n"0\n1\n2\n3\n4\n5\n6\n7\n8\n9"\nx\n')
    records = await read_records(Csv(path=path), max_record=10)
    assert records[0] == ("bad", '"0', "a quoted field is not closed within 10 bytes")
    assert records[1:] == [*({"a": str(n)} for n in range(1, 9)), {"a": '9"'}, {"a": "x"}]


@pytest.mark.parametrize("block", [7, 1000])
async def test_an_open_quote_before_a_line_that_is_too_long_spoils_neither(tmp_path: Path, block: int) -> None:
    path = write(tmp_path, "in.csv", 'a,b\n1,"open\n' + "x" * 100 + "\n2,y\n")
    seen = [s for c in await read_in_pieces(Csv(path=path), block, 500, max_record=40) for s in seen_in(c)]
    assert seen == [
        (("bad", '1,"open', "a quoted field is not closed"), f"{path}:2 (byte 4)"),
        (
            ("bad", "x" * 40 + " ... (100 bytes in all)", "the line has 100 bytes; max_record allows 40"),
            f"{path}:3 (byte 12)",
        ),
        ({"a": "2", "b": "y"}, f"{path}:4 (byte 113)"),
    ]


async def test_an_open_quote_with_no_quote_behind_it_costs_no_search_through_the_file(tmp_path: Path) -> None:
    rows = "".join(f"{n},{'x' * 30}\n" for n in range(50_000))
    path = write(tmp_path, "in.csv", 'a,b\n1,"open\n' + rows)
    seen = await read_seen(Csv(path=path))
    assert len(seen) == 50_001 and seen[0][0][0] == "bad" and seen[-1][0]["a"] == "49999"


async def test_header_false_numbers_the_columns_and_names_replace_it(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", "1;2\n3;4\n")
    assert await read_records(Csv(path=path, delimiter=";", header=False)) == [
        {"column_1": "1", "column_2": "2"},
        {"column_1": "3", "column_2": "4"},
    ]
    assert await read_records(Csv(path=path, delimiter=";", header=["x", "y"])) == [
        {"x": "1", "y": "2"},
        {"x": "3", "y": "4"},
    ]


async def test_without_a_quote_character_quotes_are_text(tmp_path: Path) -> None:
    path = write(tmp_path, "in.csv", 'a,b\n"1,2"\n')
    assert await read_records(Csv(path=path, quote="")) == [{"a": '"1', "b": '2"'}]


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        ("a,b,a\n", {}, "'a' twice.*header: false"),
        ("a,b\n", {"types": {"c": "int"}}, "no field 'c'"),
        ('a,"b\n1,2\n', {}, "header, can't be read: a quoted field is not closed"),
        (b"a,\xff\n", {}, "header, can't be read: not valid utf-8"),
        ("a" * 3000 + "\n", {}, "its first line has 3,000 bytes"),
    ],
)
async def test_a_header_that_cannot_be_used_is_an_error_at_open(
    tmp_path: Path, data: bytes | str, options: dict[str, Any], text: str
) -> None:
    path = write(tmp_path, "in.csv", data)
    with pytest.raises(ConfigError, match=f"^stage 'in': .*in.csv.*{text}"):
        await read_chunks(Csv(path=path, **options), max_record=2000)


def test_keys_that_make_no_sense_are_problems() -> None:
    odd: Any = {"delimiter": ";;", "quote": "é", "header": ["a", "a"], "types": {"a": "date", "b": list}}
    assert [key for key, _ in Csv(path="x", **odd).problems()] == ["delimiter", "quote", "header", "types", "types"]
    assert list(Csv(path="x", delimiter="\t", quote="", types={"a": int}).problems()) == []


async def test_typed_rows_take_their_types_from_the_schema(tmp_path: Path) -> None:
    class Flight(msgspec.Struct):
        carrier: str
        delay: float | None = None

    path = write(tmp_path, "in.csv", "carrier,delay,x\nUA,2,-\nAA,NA,-\nDL,late,-\n")
    for schema in (Flight, {"carrier": "str", "delay": "float?"}):
        first, second, bad = await read_records(Csv(path=path, schema=schema, null_values=["NA"]))
        assert (first.carrier, first.delay, second.delay) == ("UA", 2.0, None)
        assert bad[2] == "field 'delay': 'late' is not of type float"


async def test_a_header_longer_than_the_fingerprint_must_be_the_same_on_resume(tmp_path: Path) -> None:
    names = [f"column{n}" for n in range(300)]
    row = ",".join("1" for _ in names) + "\n"
    path = write(tmp_path, "in.csv", ",".join(names) + "\n" + row * 50)
    cursor = (await read_in_pieces(Csv(path=path), 1000, 5))[3].cursor
    write(tmp_path, "in.csv", ",".join([*names[:-1], "column9xx"]) + "\n" + row * 50)
    with pytest.raises(Exception, match="first 2,890 bytes differ"):
        await read_chunks(Csv(path=path), cursor)


async def test_ten_thousand_bad_rows_of_every_sort_spoil_no_good_one(tmp_path: Path) -> None:
    chance = random.Random(5)
    # None of these may swallow the row behind it: an open quote is closed by nothing, or by what can't close it.
    sorts = [b'%d,"open', b'%d,"a"b,1', b"%d", b"%d,x,y,z,w", b"%d,\x00,1", b"%d,\xff,1", b"%d,x,notanumber", b'"%d']
    lines: list[bytes] = [b"n,text,v"]
    expected: list[tuple[int | None, int, int]] = []
    offset = 9
    for number in range(20_000):
        bad = number % 2 == 0
        good = b'%d,"quoted ""text""",1' if chance.random() < 0.5 else b"%d,plain,2"
        line = (chance.choice(sorts) if bad else good) % number
        expected.append((None if bad else number, number + 2, offset))
        lines.append(line)
        offset += len(line) + 1
    path = write(tmp_path, "in.csv", b"\n".join(lines) + b"\n")
    seen = await read_seen(Csv(path=path, types={"n": "int", "v": "int"}))
    found: list[tuple[Any, str]] = [
        (record["n"] if isinstance(record, dict) else None, place) for record, place in seen
    ]
    assert found == [(number, f"{path}:{line} (byte {byte})") for number, line, byte in expected]


async def test_what_the_csv_module_writes_is_read_back(tmp_path: Path) -> None:
    chance = random.Random(6)
    text = io.StringIO(newline="")
    rows = [["".join(chance.choices('ab,"\n\r ;é', k=chance.randrange(9))) for _ in range(3)] for _ in range(3000)]
    csv.writer(text).writerows([["a", "b", "c"], *rows])
    path = write(tmp_path, "in.csv", text.getvalue())
    assert [list(record.values()) for record in await read_records(Csv(path=path))] == rows


PIECES = [
    b"1",
    b"22",
    b",",
    b",",
    b",",
    b"\n",
    b"\n",
    b"\r\n",
    b'"',
    b'"',
    b'""',
    b"x\n",
    b"\xff",
    b"\0",
    b"w" * 30,
    b"\r",
]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=60),
    block=st.integers(1, 200),
    records=st.integers(1, 9),
    header=st.sampled_from([["a", "b"], True]),
)
async def test_every_cursor_resumes_with_the_same_records_at_the_same_places(
    tmp_path: Path, pieces: list[bytes], block: int, records: int, header: Any
) -> None:
    path = write(tmp_path, "in.csv", b"a,b\n" + b"".join(pieces))
    source = Csv(path=path, header=header, types={"a": "int"})
    seen = await check_resumes(source, block, records, max_record=40)
    assert seen == await read_seen(source, max_record=40)
