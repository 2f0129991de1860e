"""Dead letters come back as they were saved."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.settle.json_text import decode, encode_any
from pipeline.settle.letters import Wanted
from tests.settle.states import cut_at, letter, opened

pytestmark = pytest.mark.anyio

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


class Typed(msgspec.Struct):
    name: str
    delay: float | None = None


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@given(_JSON)
@settings(max_examples=100)
def test_any_json_value_comes_back_equal(value: Any) -> None:
    text, shown = encode_any(value)
    assert not shown
    assert text.isascii()
    assert decode(text) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\xff", "b'\\xff'"),
        ({"when": {1, 2}}, "{'when': {1, 2}}"),
        (Rude(), "<Rude, repr failed: RuntimeError>"),
        ({("a", 1): 2}, "{('a', 1): 2}"),
    ],
)
def test_what_json_cannot_hold_is_shown(value: Any, expected: str) -> None:
    text, shown = encode_any(value)
    assert (decode(text), shown) == (expected, True)


def test_a_record_that_contains_itself_or_is_too_deep_is_shown() -> None:
    record: list[Any] = []
    record.append(record)
    assert encode_any(record)[1]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert encode_any(deep)[1]


async def test_a_letter_comes_back_whole(tmp_path: Path) -> None:
    given_letter = letter(
        7,
        child="3.0",
        key="lin:csv:7:3.0",
        attempts=5,
        position="flights.csv:17 (byte 2048)",
        record={"n": 2**70, "name": "\ud800", "nested": [None, 1.5]},
        replays=2,
        metadata={"trigger": "size"},
    )
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(8, letters=[given_letter]))
        found = await state.letter(1)
        assert found is not None
        assert given_letter.id == 1
        assert found == given_letter
        assert await state.letter(2) is None


async def test_odd_records_and_texts_are_saved_too(tmp_path: Path) -> None:
    letters = [
        letter(1, record=Typed("a", 2.0)),
        letter(2, record=object(), error="lone \udcff surrogate", position="od\udcffd.csv:1"),
        letter(3, record={"x": math.nan}, metadata={"raw": b"1"}),
    ]
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(8, letters=letters))
        typed, shown, nan = await state.letters()
    assert (typed.record, typed.shown) == ({"name": "a", "delay": 2.0}, False)
    assert shown.record.startswith("<object object")
    assert shown.shown
    assert shown.error == "lone \\udcff surrogate"
    assert math.isnan(nan.record["x"])
    assert nan.metadata == {"shown": "{'raw': b'1'}"}


async def test_a_letter_is_saved_as_it_was_when_the_save_was_asked_for(tmp_path: Path) -> None:
    record = {"a": 1}
    async with opened(tmp_path / "x.db") as state:
        saving = state.save(cut_at(1, letters=[letter(0, record=record)]))
        saving.send(None)  # as far as the first wait
        record["a"] = 2
        saving.close()
        assert [each.record for each in await state.letters()] == [{"a": 1}]


async def test_letters_are_found_by_stage_error_time_and_page(tmp_path: Path) -> None:
    letters = [
        letter(1),
        letter(2, stage="map"),
        letter(3, error_type="KeyError", error="'delay'"),
        letter(4, error="bad delay: x"),
    ]
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(8, letters=letters))

        async def numbers(limit: int = 100, after: int = 0, **wanted: Any) -> list[int]:
            return [each.number for each in await state.letters(Wanted(**wanted), limit, after)]

        assert await numbers() == [1, 2, 3, 4]
        assert await numbers(stage="map") == [2]
        assert await numbers(error="KeyError") == [3]
        assert await numbers(error="delay") == [3, 4]
        assert await numbers(since=2.0, until=4.0) == [2, 3]
        assert await numbers(limit=2) == [1, 2]
        assert await numbers(limit=2, after=2) == [3, 4]
        assert await state.count_letters(Wanted(error="delay", stage="call")) == 2


async def test_letters_go_when_they_are_replayed_or_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(8, letters=[letter(number) for number in range(1, 6)]))
        await state.save(cut_at(9, replayed=[2]))
        assert await state.count_letters() == 4
        assert await state.letter(2) is None
        assert await state.delete_letters([1, 2, 5, 99]) == 2
        assert [each.id for each in await state.letters()] == [3, 4]


async def test_replayed_letters_leave_the_file_once_no_rewind_can_want_them(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(1, letters=[letter(1)], taken_at=0.0))
        await state.save(cut_at(2, replayed=[1], taken_at=0.0))

        async def rows() -> int:
            database = state._database  # pyright: ignore[reportPrivateUsage]
            return await database.run(lambda each: int(each.execute("SELECT count(*) FROM letters").fetchone()[0]))

        assert await rows() == 1
        for number in range(3, 63):
            await state.save(cut_at(number, taken_at=7200.0))
        assert await rows() == 0
