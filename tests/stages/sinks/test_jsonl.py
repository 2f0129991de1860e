import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Pipeline
from pipeline.errors import RecordErrors
from stages import batchers, processors, sinks, sources
from stages.sinks.jsonl import Jsonl, JsonlFormat
from tests.stages.sinks.saved import Saved, batch

pytestmark = pytest.mark.anyio


class Flight(msgspec.Struct):
    number: int
    delay: float | None = None


def errors_of(records: list[Any]) -> dict[int, str]:
    with pytest.raises(RecordErrors) as caught:
        JsonlFormat().encode(records)
    return {index: str(error) for index, error in caught.value.errors.items()}


async def test_each_record_becomes_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(out)))

    await writer.write(batch({"id": 1, "text": "a\nb"}, [1, None], Flight(3)))
    await saved.end(writer)

    assert out.read_text() == '{"id":1,"text":"a\\nb"}\n[1,null]\n{"number":3,"delay":null}\n'


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", ["field", "nested", "struct", "bare"])
def test_a_number_that_json_has_no_words_for_is_the_fault_of_its_record_alone(bad: float, shape: str) -> None:
    shapes: dict[str, Any] = {"field": {"x": bad}, "nested": {"a": [{"x": bad}]}, "struct": Flight(1, bad), "bare": bad}
    found = errors_of([{"x": None}, shapes[shape], {"x": 1.5}])

    assert list(found) == [1]
    assert "NaN or infinite" in found[1]


def test_the_field_that_is_nan_is_named() -> None:
    assert errors_of([{"a": [{"x": math.nan}]}])[0].startswith("a[0].x is NaN")


def test_a_record_of_an_unknown_type_and_a_lone_surrogate_fail_alone() -> None:
    found = errors_of([{"ok": 1}, {"bad": object()}, {"bad": "\ud800"}, {"ok": 2}])

    assert sorted(found) == [1, 2]


def test_a_value_nested_too_deep_fails_alone() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert list(errors_of([1, deep])) == [1]


def test_integers_of_any_size_are_written_as_they_are() -> None:
    assert JsonlFormat().encode([{"big": 2**70, "none": None}]) == b'{"big":1180591620717411303424,"none":null}\n'


async def test_a_batch_with_a_bad_record_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    writer = await Saved().open(Jsonl(path=str(out)))

    with pytest.raises(RecordErrors):
        await writer.write(batch({"id": 1}, {"id": math.nan}))
    assert out.read_bytes() == b""
    await writer.write(batch({"id": 1}))

    assert out.read_text() == '{"id":1}\n'
    await writer.close()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.floats(),
    st.sampled_from([1e308, -1e308, math.inf, -math.inf, math.nan]),
    st.integers(-(2**63), 2**63),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=2),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
)


@given(st.lists(st.dictionaries(st.sampled_from(["x", "y"]), _VALUES), max_size=8))
def test_a_field_that_may_hold_nan_is_looked_at_in_every_record(records: list[dict[str, Any]]) -> None:
    bad = {index for index, record in enumerate(records) if holds_nonfinite(record)}
    try:
        JsonlFormat(frozenset({"x", "y"})).encode(records)
        assert not bad
    except RecordErrors as error:
        assert set(error.errors) == bad


def holds_nonfinite(value: Any) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case list():
            return any(map(holds_nonfinite, value))  # pyright: ignore[reportUnknownArgumentType]
        case dict():
            return any(map(holds_nonfinite, value.values()))  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return False


@given(st.lists(values, min_size=1, max_size=5))
def test_what_is_written_reads_back_the_same_and_what_would_not_is_refused(records: list[Any]) -> None:
    bad = {index for index, record in enumerate(records) if holds_nonfinite(record)}
    if bad:
        assert set(errors_of(records)) == bad
    else:
        assert msgspec.json.Decoder().decode_lines(JsonlFormat().encode(records)) == records


@pytest.mark.parametrize("fields", [frozenset(""), frozenset("y"), frozenset("xy"), frozenset("abcdxyz"), None])
def test_only_fields_that_may_hold_such_a_number_are_looked_at(fields: frozenset[str] | None) -> None:
    records: list[Any] = [{"x": 1.5, "y": None, "text": "null"}, {"y": 2.5}, {"x": None}]
    looked = JsonlFormat(fields)

    assert looked.encode(records) == JsonlFormat().encode(records)
    if fields is None or "x" in fields:
        with pytest.raises(RecordErrors) as caught:
            looked.encode([*records, {"x": {"deep": [math.inf]}}])
        assert list(caught.value.errors) == [3]


@pytest.mark.parametrize("rename", [{}, {"y": "z"}])
async def test_a_number_too_large_that_a_map_computes_fails_by_itself(tmp_path: Path, rename: dict[str, str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"x": 1.0, "big": 1}\n{"x": 1e300, "big": 2}\n{"x": null, "big": 3}\n')
    pipeline = (
        Pipeline("big", checkpoint={"path": str(tmp_path / "state.db")}, on_failure="collect")
        | sources.Jsonl(path=str(tmp_path / "in.jsonl"))
        | processors.Filter("x is not None")
        | processors.Map(set={"y": "x * x", "late": "x > 5"}, rename=rename)
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    report = await pipeline.run()

    assert (report.account.written, report.account.collected, report.account.filtered) == (1, 1, 1)
    assert "NaN or infinite" in report.errors[0]["error"]
    assert [line["big"] for line in map(msgspec.json.decode, (tmp_path / "out.jsonl").read_bytes().splitlines())] == [1]


class Big(msgspec.Struct):
    x: float | None = None


async def test_a_number_too_large_that_is_computed_for_a_typed_record_fails_by_itself(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x": 1.5}\n{"x": 1e300}\n{"x": null}\n{"x": 2}\n')
    pipeline = (
        Pipeline("typed", checkpoint={"path": str(tmp_path / "state.db")}, on_failure="collect")
        | sources.Jsonl(path=str(tmp_path / "in.jsonl"), schema=Big)
        | processors.Map(set={"y": "None if x is None else x * x", "n": "int(coalesce(x, 0)) % 7"})
        | sinks.Jsonl(path=str(tmp_path / "out.jsonl"))
    )

    report = await pipeline.run()

    assert (report.account.written, report.account.collected) == (3, 1)
    assert report.errors[0]["error"].startswith("y is NaN or infinite")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"x":1.5,"y":2.25,"n":1}', '{"x":null,"y":null,"n":0}']


def test_typed_records_whose_doubtful_field_is_finite_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.sinks.jsonl._NULL", None)

    assert JsonlFormat(frozenset({"delay"})).encode([Flight(1, 2.5)]) == b'{"number":1,"delay":2.5}\n'


class Silent(msgspec.Struct):
    """A class whose default JSON has no word for."""

    n: int
    x: float = math.nan


def spoil(record: Any) -> Any:
    """Put a number into a record that is not its own to change."""
    record["x"] = math.nan
    return True


def spoil_within(record: Any) -> Any:
    """Put one into a value that branches share."""
    record["x"].append(math.nan)
    return record


@pytest.mark.parametrize("way", ["class", "when", "by", "order_by", "sibling"])
async def test_whatever_may_put_such_a_number_into_a_record_it_does_not_become_null(tmp_path: Path, way: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 1, "x": [0]}\n' if way != "class" else '{"n": 1}\n')
    source = sources.Jsonl(path=str(tmp_path / "in.jsonl"), schema=Silent if way == "class" else None)
    to = sinks.Jsonl(path=str(tmp_path / "out.jsonl"), when=spoil if way == "when" else None)
    keys: dict[str, Any] = {way: spoil} if way in ("by", "order_by") else {}
    chain: Any = batchers.Fixed(size=10, **keys) | to
    if way == "sibling":
        chain = [processors.Call(spoil_within) | sinks.Discard(), chain]
    pipeline = Pipeline("nan", checkpoint={"path": str(tmp_path / "state.db")}, on_failure="collect") | source | chain

    report = await pipeline.run()

    assert "null" not in (tmp_path / "out.jsonl").read_text()
    assert report.account.collected == 1
