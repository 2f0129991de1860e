"""Typed records with room for what is computed: nobody can tell them from those that are made anew for each field."""

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import Pipeline
from pipeline.batch import Failed
from pipeline.projection import Access
from pipeline.stage import Processor
from pipeline.widening import Widened, fill, narrowed, widen, widener
from stages import batchers, processors, sinks, sources
from stages.sources.jsonl import WidenedLines


class Inner(msgspec.Struct):
    a: int
    b: float = 1.5


class Outer(msgspec.Struct, rename={"of": "from"}):
    n: Annotated[int, msgspec.Meta(ge=-3)]
    inner: Inner | None = None
    of: str = "here"
    tags: list[str] = []
    more: dict[str, int] = msgspec.field(default_factory=lambda: {"x": 1})


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    of: str = "here"
    n: int
    inner: Inner | None = None


class NewJsonl(sources.Jsonl):
    """A source whose typed records never have room for a field."""

    def widens(self) -> bool:
        """Return False."""
        return False


def pipeline_of(folder: Path, stages: Sequence[Processor], source: type[sources.Jsonl], schema: Any) -> Pipeline:
    """Return a pipeline from in.jsonl to out.jsonl that collects what fails."""
    pipeline = Pipeline("p", checkpoint="none", on_failure="collect")
    pipeline |= source(path=str(folder / "in.jsonl"), name="in", schema=schema)
    for stage in stages:
        pipeline |= stage
    return pipeline | batchers.Fixed(size=3) | sinks.Jsonl(path=str(folder / "out.jsonl"), mode="overwrite", name="out")


def outcome(stages: Callable[[], list[Processor]], source: type[sources.Jsonl], schema: Any, data: bytes) -> Any:
    """Return what was written, what failed, and the account."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.jsonl").write_bytes(data)
        report = asyncio.run(pipeline_of(folder, stages(), source, schema).run())
        errors = [
            (each["stage"], each["error"], each["position"].rpartition("/")[2], each["record"])
            for each in report.errors
        ]
        return (folder / "out.jsonl").read_bytes(), errors, report.account


# --- the same meaning -------------------------------------------------------------------------------------------------


def seen(record: Any) -> Any:
    """Return what a function of the user's finds in a record."""
    return {"class": type(record).__name__, "fields": record.__struct_fields__, "record": msgspec.to_builtins(record)}


def put(record: Any) -> Any:
    """Change a computed field."""
    record.m = "changed"
    return record


STAGES: list[Callable[[], list[Processor]]] = [
    lambda: [processors.Map(set={"m": "10 / n"})],
    lambda: [processors.Filter("n > 0"), processors.Map(set={"m": "inner.a / n", "k": "len(tags)"})],
    lambda: [
        processors.Map(set={"m": "10 / n"}),
        processors.Map(set={"k": "m * inner.a"}),
        processors.Filter("k < 99"),
    ],
    lambda: [processors.Map(set={"m": "10 / n"}), processors.Filter("inner.a < 3"), processors.Call(seen)],
    lambda: [processors.Map(set={"m": "1"}), processors.Call(put), processors.Map(set={"m": "m + '!'"})],
    lambda: [processors.Map(set={"m": "1", "k": "10 / n"}), processors.Map(set={"m": "k"})],
    lambda: [processors.Filter("m is None"), processors.Map(set={"m": "2"})],
    lambda: [processors.Map(set={"n": "n * 2", "m": "n"}), processors.Map(set={"k": "10 / m"})],
    lambda: [processors.Map(set={"m": "10 / n"}), processors.Map(rename={"m": "z"}, drop=["tags"])],
    lambda: [processors.Map(set={"m": "_record"}), processors.Map(set={"from": "1"})],
    lambda: [processors.Map(set={"m": "1"}), processors.Map(set={"k": "10 / n"}, on_failure="skip")],
]

values = st.none() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=2)
inners = st.fixed_dictionaries({"a": st.integers(-5, 5)}, optional={"b": values, "m": values})
records = st.fixed_dictionaries(
    {"n": st.integers(-4, 4)},
    optional={
        "inner": inners | st.none(),
        "from": st.text(max_size=2),
        "tags": st.just(["a"]),
        "m": values,
        "k": values,
    },
)
lines = st.one_of(
    records.map(json.dumps),
    records.map(json.dumps),
    st.dictionaries(st.sampled_from(["n", "inner", "m", "z"]), values).map(json.dumps),
    st.sampled_from(
        ["", " ", "x", "[1]", '{"n":1,"n":2}', '{"n":1,"m":{"x":[1]}}', '{"n":1} {"n":2}', '{"n":1,"m":null}']
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(lines, max_size=9), st.sampled_from(STAGES), st.sampled_from([Outer, Strict, {"n": "int", "m": "any?"}])
)
@example(['{"n":0}', '{"n":1,"m":5}', '{"n":2}'], STAGES[0], Outer)
@example(['{"n":1,"inner":{"a":1}}', '{"n":1}', '{"n":"x"}', '{"n":0}'], STAGES[2], Outer)
@example(['{"n":1}', '{"n":0}'], STAGES[10], Strict)
@example(['{"n":1,"z":2}', '{"n":1}'], STAGES[0], Strict)
@example(['{"n":1}'] * 12, STAGES[4], Outer)
def test_a_record_with_room_means_what_one_that_is_made_anew_means(
    texts: list[str], stages: Callable[[], list[Processor]], schema: Any
) -> None:
    data = "\n".join(texts).encode()

    assert outcome(stages, sources.Jsonl, schema, data) == outcome(stages, NewJsonl, schema, data)


def test_what_fails_has_the_fields_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n":0,"inner":{"a":2}}\n')
    stages = [processors.Map(set={"m": "n + 1"}), processors.Map(set={"k": "inner.a / n"})]
    pipeline = pipeline_of(tmp_path, stages, sources.Jsonl, Strict)

    report = asyncio.run(pipeline.run())

    assert report.errors[0]["record"] == "Strict(of='here', n=0, inner=Inner(a=2, b=1.5), m=1)"


# --- the types --------------------------------------------------------------------------------------------------------


def made(declared: Any, *accesses: Access) -> type[Widened]:
    """Return the type with room for what is computed."""
    kind = widen(declared, accesses)
    assert kind is not None
    return kind


def sets(*names: str, reads: Sequence[str] = ()) -> Access:
    """Return what a processor does that sets these fields."""
    return Access(frozenset((name,) for name in reads), names)


def test_a_type_with_room_has_the_computed_fields_behind_its_own() -> None:
    kind = made(Outer, sets("m", reads=["n"]), sets(reads=["m"]), sets("k", reads=["m"]))

    assert kind.__struct_fields__ == (*Outer.__struct_fields__, "m", "k")
    assert kind.__struct_encode_fields__ == ("n", "inner", "from", "tags", "more", "m", "k")
    assert kind.__name__ == "Outer"


class Checked(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        """Look at it."""


class Frozen(msgspec.Struct, frozen=True):
    n: int


class Listed(msgspec.Struct, array_like=True):
    n: int


class Tagged(msgspec.Struct, tag=True):
    n: int


class Guarded(msgspec.Struct):
    n: int

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize("declared", [Any, dict[str, int], Checked, Frozen, Listed, Tagged, Guarded])
def test_a_type_that_has_more_than_fields_is_left_as_it_is(declared: Any) -> None:
    assert widen(declared, [sets("m")]) is None


@pytest.mark.parametrize(
    "accesses",
    [
        [],
        [sets(reads=["n"])],
        [sets("n")],
        [sets("from")],
        [sets("m"), sets("m")],
        [sets(reads=["m"]), sets("m")],
        [sets("m", reads=["m"])],
        [sets("a b")],
        [sets("_m")],
        [sets("class")],
    ],
    ids=str,
)
def test_there_is_no_room_for_what_is_there_already_or_read_before(accesses: list[Access]) -> None:
    assert widen(Outer, accesses) is None


def test_each_field_is_filled_in_once() -> None:
    record = widener(made(Outer, sets("m"), sets("k")))(Outer(1))

    assert fill(record, ("m",), (1,))
    assert not fill(record, ("m",), (2,))
    assert not fill(record, ("z",), (1,))
    assert not fill(Outer(1), ("m",), (1,))
    assert narrowed(record).__struct_fields__ == (*Outer.__struct_fields__, "m")
    assert type(narrowed(record)) is type(narrowed(record))
    assert fill(record, ("k",), (3,))
    assert narrowed(record) is record
    assert msgspec.json.encode(record).endswith(b'"m":1,"k":3}')


def test_a_record_with_nothing_computed_is_one_of_the_declared_type() -> None:
    assert narrowed(widener(made(Outer, sets("m")))(Outer(1))) == Outer(1)
    assert narrowed(5) == 5


@pytest.mark.parametrize("odd", ["", "x", '{"n":3,"m":4}'])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_all_records_of_a_source_have_room_whichever_way_they_were_decoded(odd: str, encoding: str) -> None:
    kind = made(Outer, sets("m"))
    decoded = WidenedLines(encoding, kind).decode(f'{{"n":1}}\n{odd}\n{{"n":2}}\n'.encode(), True)

    assert {type(record) for record in decoded.records if not isinstance(record, Failed)} == {kind}
    assert {getattr(record, "m", None) for record in decoded.records} <= {msgspec.UNSET, None}
    assert (decoded.lines, len(decoded.failed)) == (3, odd == "x")


@pytest.mark.parametrize("schema", [Outer, Strict, {"n": "int"}])
def test_records_are_not_made_anew_for_a_computed_field(
    tmp_path: Path, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **named: Any) -> Any:
        raise AssertionError("a new type was made")

    monkeypatch.setattr("stages.processors.map.shape_of", refuse)
    (tmp_path / "in.jsonl").write_text('{"n":1}\n{"n":2}\n')

    asyncio.run(pipeline_of(tmp_path, [processors.Map(set={"m": "n + 1"})], sources.Jsonl, schema).run())

    assert [json.loads(line)["m"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [2, 3]
