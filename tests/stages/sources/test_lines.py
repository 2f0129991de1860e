"""Lines of text."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.sources.lines import Lines
from tests.stages.sources.reading import check_resumes, read_records, read_seen, write

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_line_is_a_record_without_its_line_end_and_blank_ones_too(tmp_path: Path) -> None:
    path = write(tmp_path, "in.txt", "one\r\n\n \u2028é\x0b\nlast")
    assert await read_seen(Lines(path=path)) == [
        ({"line": "one"}, f"{path}:1 (byte 0)"),
        ({"line": ""}, f"{path}:2 (byte 5)"),
        ({"line": " \u2028é\x0b"}, f"{path}:3 (byte 6)"),
        ({"line": "last"}, f"{path}:4 (byte 14)"),
    ]


async def test_a_line_that_is_not_of_the_encoding_is_bad_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "in.txt", b"a\n\xff\xfe\n\nb\n")
    assert await read_seen(Lines(path=path)) == [
        ({"line": "a"}, f"{path}:1 (byte 0)"),
        (("bad", "\\xff\\xfe", "not valid utf-8: invalid start byte"), f"{path}:2 (byte 2)"),
        ({"line": ""}, f"{path}:3 (byte 5)"),
        ({"line": "b"}, f"{path}:4 (byte 6)"),
    ]
    assert await read_records(Lines(path=path, encoding="latin-1")) == [{"line": t} for t in ("a", "ÿþ", "", "b")]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\xff", b"\xc3\xa9", b"x" * 30]), max_size=40),
    block=st.integers(1, 60),
    records=st.integers(1, 9),
)
async def test_lines_are_what_lies_between_newlines_whatever_the_blocks(
    tmp_path: Path, pieces: list[bytes], block: int, records: int
) -> None:
    data = b"".join(pieces)
    path = write(tmp_path, "in.txt", data)
    source = Lines(path=path, encoding="latin-1")
    seen = await check_resumes(source, block, records)
    expected = data.decode("latin-1").split("\n")
    if not expected[-1]:
        expected.pop()
    assert [record["line"] for record, _ in seen] == [line.removesuffix("\r") for line in expected]
