from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import RecordErrors
from stages.sinks.lines import Lines, LinesFormat
from tests.stages.sinks.saved import Saved, batch

pytestmark = pytest.mark.anyio


class Entry(msgspec.Struct):
    line: str


async def test_the_field_of_each_record_becomes_a_line(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    saved = Saved()
    writer = await saved.open(Lines(path=str(out), field="text"))

    await writer.write(batch({"text": "one"}, {"text": ""}, {"text": "drei ä"}))
    await saved.end(writer)

    assert out.read_text() == "one\n\ndrei ä\n"


def test_typed_records_are_written_too() -> None:
    assert LinesFormat("line").encode([Entry("a"), {"line": "b"}]) == b"a\nb\n"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"line": "two\nlines"}, "line break"),
        ({"other": "x"}, "found nothing"),
        ({"line": 7}, "found int"),
        ({"line": "\ud800"}, "surrogates"),
        ("bare", "found nothing"),
    ],
)
def test_a_record_that_makes_no_line_fails_alone(record: Any, reason: str) -> None:
    with pytest.raises(RecordErrors) as caught:
        LinesFormat("line").encode([{"line": "good"}, record, {"line": "good"}])

    assert list(caught.value.errors) == [1]
    assert reason in str(caught.value.errors[1])
