import csv
import math
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, RecordErrors, StateError
from stages.sinks.csv import Csv, CsvFormat
from tests.stages.sinks.saved import Saved, batch

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct):
    number: int
    day: date


def rows(*records: Any, columns: list[str] | None = None, escape: bool = False, delimiter: str = ",") -> str:
    return CsvFormat(columns, delimiter, True, escape).encode(records).decode()


def error_of(*records: Any, columns: list[str] | None = None) -> str:
    with pytest.raises(RecordErrors) as caught:
        rows(*records, columns=columns)
    assert list(caught.value.errors) == [len(records) - 1]
    return str(caught.value.errors[len(records) - 1])


async def test_a_file_begins_with_the_fields_of_the_first_record(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    saved = Saved()
    writer = await saved.open(Csv(path=str(out)))

    await writer.write(batch({"b": 1, "a": "x,y"}))
    await writer.write(batch({"a": 'q"', "b": None}, {"b": 2.5}))
    await saved.end(writer)

    assert out.read_text() == 'b,a\n1,"x,y"\n,"q"""\n2.5,\n'


def test_given_columns_are_written_in_their_order() -> None:
    assert rows({"a": 1, "b": 2}, columns=["b", "a", "c"]) == "2,1,\n"


def test_a_field_that_is_no_column_fails_its_record_and_is_named() -> None:
    assert "'late' is no column" in error_of({"a": 1}, {"a": 1, "late": 2})


def test_a_record_without_fields_fails() -> None:
    assert "found int" in error_of({"a": 1}, 5)
    assert "no field" in error_of({})


def test_nested_values_are_json_and_dates_are_iso() -> None:
    assert rows({"a": [1, {"b": None}], "d": date(2026, 1, 2)}) == '"[1,{""b"":null}]",2026-01-02\n'
    assert rows(Flight(1, date(2026, 1, 2))) == "1,2026-01-02\n"


def test_truth_values_are_written_in_small_letters() -> None:
    assert rows({"a": True, "b": False}) == "true,false\n"


def test_a_nested_value_that_json_can_not_hold_fails_its_record() -> None:
    assert "field 'a'" in error_of({"a": 1}, {"a": [math.nan]})


def test_a_lone_surrogate_fails_its_record() -> None:
    assert "surrogates" in error_of({"a": 1}, {"a": "\ud800"})


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_text_that_looks_like_a_formula_is_escaped_when_asked(text: str) -> None:
    plain, escaped = rows({"a": text}), rows({"a": text}, escape=True)

    assert next(csv.reader(StringIO(plain, newline=""))) == [text]
    assert next(csv.reader(StringIO(escaped, newline=""))) == ["'" + text]


def test_numbers_are_no_formulas() -> None:
    assert rows({"a": -1, "b": "-1"}, escape=True) == "-1,'-1\n"


@given(
    st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), min_size=1, max_size=6), st.sampled_from(",;\t|")
)
def test_any_text_reads_back_as_it_was(texts: list[list[str]], delimiter: str) -> None:
    text = rows(*[{"a": a, "b": b} for a, b in texts], delimiter=delimiter)

    assert list(csv.reader(StringIO(text, newline=""), delimiter=delimiter)) == texts


CELLS = st.none() | st.integers() | st.floats() | st.text('ab,;-1. %s\n"', max_size=6)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5), st.sampled_from(",;-1.%"))
def test_the_quick_way_writes_the_very_same_bytes_as_the_csv_module(table: list[list[Any]], delimiter: str) -> None:
    expected = StringIO()
    csv.writer(expected, delimiter=delimiter, lineterminator="\n").writerows(table)

    assert rows(*[dict(zip("abc", row, strict=True)) for row in table], delimiter=delimiter) == expected.getvalue()


@given(st.lists(st.text('",\n\ra', max_size=6), min_size=1, max_size=6), st.integers(0, 200), st.integers(1, 9))
def test_the_end_of_the_last_whole_row_is_found_wherever_a_row_is_torn(texts: list[str], at: int, size: int) -> None:
    format = CsvFormat(["a"], ",", True, False)
    lines = [format.encode([{"a": text}]) for text in texts]
    torn = b"".join(lines)[:at]
    borders = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]

    blocks = [torn[low : low + size] for low in range(0, len(torn), size)]

    # A border inside of "..." can look like the end of a row only when the quote that follows is torn off: never less.
    assert format.whole(blocks) in [border for border in borders if border <= len(torn)]


async def test_columns_are_kept_over_a_crash(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    saved = Saved()
    sink = Csv(path=str(out))
    writer = await saved.open(sink)
    await writer.write(batch({"a": 1, "b": 2}))
    await saved.cut(writer)

    writer = await saved.open(sink)
    await writer.write(batch({"b": 4, "a": 3}))
    await saved.end(writer)

    assert out.read_text() == "a,b\n1,2\n3,4\n"


async def test_a_batch_that_fails_does_not_decide_the_columns(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    writer = await Saved().open(Csv(path=str(out)))

    with pytest.raises(RecordErrors):
        await writer.write(batch({"x": "\ud800"}, {"a": 1}))
    await writer.write(batch({"a": 1}))

    assert out.read_text() == "a\n1\n"
    await writer.close()


async def test_a_file_that_is_appended_to_gives_the_columns(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("a,b\n1,2")
    writer = await Saved().open(Csv(path=str(out), mode="append"), saved=False, announce=None)

    await writer.write(batch({"b": 4, "a": 3}))
    await writer.close()

    assert out.read_text() == "a,b\n1,2\n3,4\n"


async def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("a,b\n1,2\n")

    with pytest.raises(StateError, match="expected the columns x"):
        await Saved().open(Csv(path=str(out), mode="append", columns=["x"]), saved=False, announce=None)

    assert out.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("keys", [{"columns": []}, {"columns": ["a", "a"]}, {"delimiter": '"'}, {"delimiter": "\n"}])
async def test_keys_that_can_not_be_are_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        await Saved().open(Csv(path=str(tmp_path / "out.csv"), **keys))
