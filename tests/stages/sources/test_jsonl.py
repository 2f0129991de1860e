"""JSON lines: good ones, bad ones, and where they lie."""

import gc
import random
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, StateError
from stages.sources.jsonl import Jsonl
from tests.stages.sources.reading import check_resumes, read_chunks, read_in_pieces, read_records, read_seen, write

pytestmark = pytest.mark.anyio

BAD_LINES = [
    b"not json",
    b'{"a": 1',
    b'{"a": 1}}',
    b"{} {}",
    b"[1][2]",
    b'{"a":',
    b"1}",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"[" * 100_000,
    b'{"a": "\xff\xfe"}',
    b'{"a": "\xc3',
    b'{"a": 1\x00}',
    b"\x00",
    b"\xef\xbb\xbf{}",
    b'{"a": "\x01"}',
    b'{"a": "\\ud800"}',
    b"{'a': 1}",
    b"{a: 1}",
    b'"',
    b"\x0b{}",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_line_is_a_record_with_its_position(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", '{"a": 1}\n[2, "é"]\n\n   \n3\r\n{"a": null}')
    assert await read_seen(Jsonl(path=path)) == [
        ({"a": 1}, f"{path}:1 (byte 0)"),
        ([2, "é"], f"{path}:2 (byte 9)"),
        (3, f"{path}:5 (byte 24)"),
        ({"a": None}, f"{path}:6 (byte 27)"),
    ]


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
async def test_a_file_without_records_gives_none_and_no_error(tmp_path: Path, data: bytes) -> None:
    assert await read_chunks(Jsonl(path=write(tmp_path, "in.jsonl", data))) == []


async def test_a_byte_order_mark_is_skipped_at_the_start_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", b"\xef\xbb\xbf1\n2\n")
    assert await read_seen(Jsonl(path=path)) == [(1, f"{path}:1 (byte 3)"), (2, f"{path}:2 (byte 5)")]


@pytest.mark.parametrize("bad", BAD_LINES, ids=lambda bad: repr(bad[:20]))
async def test_a_bad_line_is_one_bad_record_and_its_neighbours_are_untouched(tmp_path: Path, bad: bytes) -> None:
    path = write(tmp_path, "in.jsonl", b'{"i": 1}\n' + bad + b'\n{"i": 2}\n')
    first, failed, last = await read_seen(Jsonl(path=path))
    assert (first[0], last[0]) == ({"i": 1}, {"i": 2})
    assert failed[0][0] == "bad" and failed[0][2]
    assert failed[1] == f"{path}:2 (byte 9)"
    assert last[1] == f"{path}:3 (byte {10 + len(bad)})"


async def test_ten_thousand_bad_lines_of_every_sort_spoil_no_good_one(tmp_path: Path) -> None:
    chance = random.Random(4)
    short = [bad for bad in BAD_LINES if len(bad) < 10_000]
    lines: list[bytes] = []
    expected: list[tuple[Any, int, int]] = []
    offset = 0
    for number in range(20_000):
        bad = number % 2 == 0
        line = chance.choice(short) if bad else msgspec.json.encode({"n": number, "text": "x" * chance.randrange(60)})
        expected.append((None if bad else number, number + 1, offset))
        lines.append(line)
        offset += len(line) + 1
    path = write(tmp_path, "in.jsonl", b"\n".join(lines) + b"\n")
    seen = await read_seen(Jsonl(path=path))
    found: list[tuple[Any, str]] = [
        (record["n"] if isinstance(record, dict) else None, place) for record, place in seen
    ]
    assert found == [(number, f"{path}:{line} (byte {byte})") for number, line, byte in expected]


async def test_a_line_that_is_too_long_is_bad_and_only_its_beginning_is_kept(tmp_path: Path) -> None:
    data = b'{"a": "' + b"x" * 5000 + b'"}\n1\n' + b"y" * 2001 + b"\n" + b"8" * 2000 + b"\n2\n" + b"z" * 3000
    path = write(tmp_path, "in.jsonl", data)
    source = Jsonl(path=path)
    first, one, second, _, two, last = await check_resumes(source, 700, 3, max_record=2000)
    assert one[0] == 1 and two[0] == 2
    assert first[0][1] == '{"a": "' + "x" * 1017 + " ... (5,009 bytes in all)"
    assert first[0][2] == "the line has 5,009 bytes; max_record allows 2,000"
    assert first[1] == f"{path}:1 (byte 0)" and one[1] == f"{path}:2 (byte 5010)"
    assert second[0][2] == "the line has 2,001 bytes; max_record allows 2,000"
    assert last[0][2] == "the line has 3,000 bytes; max_record allows 2,000"
    assert last[1] == f"{path}:6 (byte {len(data) - 3000})"


async def test_text_of_another_encoding_is_decoded(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", '{"a": "é"}\n\n{"a": 2}\n'.encode("latin-1"))
    assert await read_records(Jsonl(path=path, encoding="latin-1")) == [{"a": "é"}, {"a": 2}]
    assert [type(record) for record in await read_records(Jsonl(path=path))] == [tuple, dict]


@pytest.mark.parametrize("encoding", ["utf-16", "cp037", "no such thing", "hex", "\0"])
async def test_an_encoding_that_cannot_be_cut_into_lines_is_refused(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "in.jsonl", "")
    assert [key for key, _ in Jsonl(path=path, encoding=encoding).problems()] == ["encoding"]
    with pytest.raises(ConfigError, match="stage 'in': encoding"):
        await read_chunks(Jsonl(path=path, encoding=encoding))


async def test_a_schema_makes_typed_records_and_refuses_others(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", '{"a": 1, "b": "x"}\n{"a": "1"}\n{"a": 2, "c": 3}\n')
    first, bad, last = await read_records(Jsonl(path=path, schema={"a": "int", "b": "str?"}))
    assert (first.a, first.b, last.a, last.b) == (1, "x", 2, None)
    assert bad[2] == "Expected `int`, got `str` - at `$.a`"
    assert not gc.is_tracked(first)


async def test_a_struct_class_of_the_user_is_a_schema(tmp_path: Path) -> None:
    class Point(msgspec.Struct):
        x: int
        y: int

    path = write(tmp_path, "in.jsonl", '{"x": 1, "y": 2}\n')
    assert await read_records(Jsonl(path=path, schema=Point)) == [Point(1, 2)]


async def test_typed_records_come_in_larger_chunks(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", '{"a": 1}\n' * 9000)

    def sizes(chunks: list[Any]) -> list[int]:
        return [len(chunk.records) for chunk in chunks[1:-1]]

    assert set(sizes(await read_chunks(Jsonl(path=path)))) == {256}
    assert set(sizes(await read_chunks(Jsonl(path=path, schema={"a": "int"})))) == {512}


class Leg(msgspec.Struct):
    miles: float | None = None
    onward: "Leg | None" = None


class Trip(msgspec.Struct):
    legs: list[Leg]
    extra: dict[str, Any]
    tags: Annotated[list[str], msgspec.Meta(max_length=3)] = []
    rate: float = 1.5


class Computing(msgspec.Struct):
    x: float

    def __post_init__(self) -> None:
        self.x *= 1e300


class Around(msgspec.Struct):
    inner: dict[str, list[Computing | None]]


class Made(msgspec.Struct):
    xs: list[float] = msgspec.field(default_factory=lambda: [float("inf")])


class Boundless(msgspec.Struct):
    x: float = float("inf")


class Raw(msgspec.Struct):
    x: msgspec.Raw


def test_records_of_a_type_that_only_the_text_fills_hold_no_nan() -> None:
    assert Jsonl(path="x", schema=Trip).nonfinite() == frozenset()


@pytest.mark.parametrize("schema", [Computing, Around, Made, Boundless, Raw])
def test_a_type_with_code_or_such_a_default_may_hold_nan_anywhere(schema: type[msgspec.Struct]) -> None:
    assert Jsonl(path="x", schema=schema).nonfinite() is None


def test_a_schema_with_an_unknown_type_is_a_problem() -> None:
    problems = list(Jsonl(path="x", schema={"a": "integer", "b-c": "int"}).problems())
    assert [key for key, _ in problems] == ["schema", "schema"]
    assert "'integer'" in problems[0][1] and "'b-c'" in problems[1][1]


async def test_a_finished_file_that_grew_is_read_on_and_a_late_line_end_is_no_record(tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl", "1\n2")
    cursor = (await read_chunks(Jsonl(path=path)))[-1].cursor
    assert await read_chunks(Jsonl(path=path), cursor) == []
    write(tmp_path, "in.jsonl", "1\n2\n3\n")
    assert await read_seen(Jsonl(path=path), cursor) == [(3, f"{path}:3 (byte 4)")]


async def test_a_cursor_refuses_a_file_that_is_not_the_one_that_was_read(tmp_path: Path) -> None:
    lines = [f'{{"number": {n:06}}}\n'.replace(" 0", " 1") for n in range(2000)]
    path = write(tmp_path, "in.jsonl", "".join(lines))
    cursor = (await read_in_pieces(Jsonl(path=path), 4096, 100))[5].cursor
    head = ["{}\n", *lines[1:]]
    last: int = cursor["line"] - 1
    before = [*lines[:last], lines[last].replace("1", "2"), *lines[last + 1 :]]
    for changed, what in ((head, "first 1,024 bytes differ"), (before, "before byte"), (lines[:10], "shorter than")):
        write(tmp_path, "in.jsonl", "".join(changed))
        with pytest.raises(StateError, match=f"stage 'in': .*{what}.*--fresh"):
            await read_chunks(Jsonl(path=path), cursor)
    (tmp_path / "in.jsonl").unlink()
    with pytest.raises(StateError, match="is gone"):
        await read_chunks(Jsonl(path=path), cursor)


LINE = st.one_of(
    st.sampled_from([bad for bad in BAD_LINES if len(bad) < 100]),
    st.sampled_from([b"", b" ", b"\r", b"\xef\xbb\xbf", b"x" * 80, b'"' + b"y" * 61 + b'"', b'"' + b"y" * 62 + b'"']),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 999)).map(msgspec.json.encode),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=30), ends=st.booleans(), block=st.integers(1, 200), records=st.integers(1, 9))
async def test_every_cursor_resumes_with_the_same_records_at_the_same_places(
    tmp_path: Path, lines: list[bytes], ends: bool, block: int, records: int
) -> None:
    path = write(tmp_path, "in.jsonl", b"\n".join(lines) + (b"\n" if ends else b""))
    source = Jsonl(path=path)
    seen = await check_resumes(source, block, records, max_record=64)
    assert seen == await read_seen(source, max_record=64)
