"""Records of which only some fields are decoded: they mean what whole ones mean, and are written as they came."""

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import Pipeline
from pipeline.projection import Access, Projected, Seal, project, whole
from pipeline.sizes import estimate
from pipeline.stage import Processor, Sink
from stages import batchers, processors, sinks, sources
from stages.sinks.jsonl import JsonlFormat
from tests.stages.sources.test_jsonl import BAD_LINES


class WholeJsonl(sources.Jsonl):
    """A source whose records are always decoded as a whole."""

    def projects(self) -> bool:
        """Return False."""
        return False


def pipeline_of(
    folder: Path,
    stages: Sequence[Processor],
    source: type[sources.Jsonl] = sources.Jsonl,
    sink: Sink | None = None,
    policy: Literal["skip", "collect", "dead_letter"] = "collect",
) -> Pipeline:
    """Return a pipeline from in.jsonl to out.jsonl that collects what fails."""
    pipeline = Pipeline("p", checkpoint="none", on_failure=policy) | source(path=str(folder / "in.jsonl"), name="in")
    for stage in stages:
        pipeline |= stage
    return (
        pipeline
        | batchers.Fixed(size=3)
        | (sink or sinks.Jsonl(path=str(folder / "out.jsonl"), mode="overwrite", name="out"))
    )


def run(pipeline: Pipeline) -> Any:
    """Return the report of a run."""
    return asyncio.run(pipeline.run())


def written(folder: Path, lines: bytes, stages: Sequence[Processor]) -> bytes:
    """Return what a pipeline makes of lines."""
    (folder / "in.jsonl").write_bytes(lines)
    run(pipeline_of(folder, stages))
    return (folder / "out.jsonl").read_bytes()


# --- the same meaning -------------------------------------------------------------------------------------------------

STAGES: list[Callable[[], list[Processor]]] = [
    list,
    lambda: [processors.Filter("level != 'debug'")],
    lambda: [processors.Filter("http.ms > 10")],
    lambda: [processors.Filter("x is not None and x < 5"), processors.Map(set={"slow": "http.ms * 2 > 100"})],
    lambda: [processors.Map(set={"ratio": "x / 2", "rest": "http"}), processors.Filter("ratio > 1")],
    lambda: [processors.Map(set={"product": "x * x"}), processors.Map(set={"product": "0", "more": "product"})],
    lambda: [processors.Map(set={"new": "coalesce(http.inner.deep, level, 'none')"})],
    lambda: [processors.Map(set={"both": "len(http)", "ms": "http.ms"}), processors.Filter("level.lower() != 'a'")],
    lambda: [processors.Map(set={"x": "1", "many": "[x, http]"})],
]
scalars = st.none() | st.booleans() | st.integers(-20, 200) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.sampled_from(["debug", "info", "A", "é{}\n", '"', ",", "}"])
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=4
)
https = st.dictionaries(st.sampled_from(["ms", "inner", "z"]), values, max_size=3)
fields = st.fixed_dictionaries(
    {},
    optional={
        "level": texts | values,
        "http": https | values,
        "x": scalars,
        "product": values,
        "slow": values,
        "whole_line": values,
        "a b": values,
        "tags": values,
    },
)


def dumped(value: Any, separators: tuple[str, str], ascii: bool) -> bytes:
    """Return the text of a value."""
    return json.dumps(value, separators=separators, ensure_ascii=ascii).encode()


def between(blanks: tuple[bytes, bytes], text: bytes) -> bytes:
    """Return a text with blanks around it."""
    return blanks[0] + text + blanks[1]


def same(record: Any) -> Any:
    """Return what it is given."""
    return record


objects = st.builds(
    dumped,
    fields | values,
    st.sampled_from([(",", ":")] * 5 + [(", ", ": "), (" ,\t", " : ")]),
    st.booleans(),
)
around = st.tuples(st.sampled_from([b"", b" "]), st.sampled_from([b"", b" ", b"\r", b"\t \r"]))
odd = st.sampled_from(
    [
        *(line for line in BAD_LINES if b"e999" not in line and len(line) < 1000 and not line.startswith(b"\xef")),
        b"{}",
        b"{ }",
        b" {}",
        b'{"x": 1, "x": 2, "level": "info"}',
        b'{"x": 1 }',
        b'{"level": "\xff", "x": 1}',
        b'{"t": "\xff", "x": 1, "level": "a", "http": {"ms": 70}}',
        b'{"http": {"ms": 5}, "http": 5}',
        b'{"\\u0078": 3, "http": null}',
        b"",
    ]
)
lines = st.builds(between, around, objects) | odd


def outcome(folder: Path, stages: Sequence[Processor], source: type[sources.Jsonl]) -> tuple[Any, Any, Any]:
    """Return what a run counts, what failed in it and why, and the records that it wrote."""
    report = run(pipeline_of(folder, stages, source))
    found = [(each["stage"], each["position"], each["error"], each["record"]) for each in report.errors]
    records = list(map(msgspec.json.decode, (folder / "out.jsonl").read_bytes().splitlines()))
    return msgspec.to_builtins(report.account), found, records


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(lines, max_size=8), st.sampled_from(STAGES), st.booleans())
@example([b'{"x":1e300,"level":"a"}', b'{"x":2}'], STAGES[5], True)
@example([b'{"x":1}', b'{"x":"text"}', b'{"x":null}'], STAGES[4], True)
@example([b"{}", b'{"x":1}'], STAGES[8], False)
@example([b" {}"], STAGES[8], True)
def test_a_projected_record_means_what_the_whole_one_means(
    raw: list[bytes], stages: Callable[[], list[Processor]], ended: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in.jsonl").write_bytes(b"\n".join(raw) + b"\n" * ended)
        assert outcome(folder, stages(), sources.Jsonl) == outcome(folder, stages(), WholeJsonl)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(lines, min_size=2, max_size=6), st.sampled_from(STAGES))
def test_how_a_record_is_written_depends_on_its_line_alone(
    raw: list[bytes], stages: Callable[[], list[Processor]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        together = written(folder, b"\n".join(raw) + b"\n", stages())
        assert together == b"".join(written(folder, line + b"\n", stages()) for line in raw)


# --- as it came -------------------------------------------------------------------------------------------------------


def test_fields_that_nobody_reads_are_written_as_they_came(tmp_path: Path) -> None:
    lines = b'{"b":1.50,"level":"a","t":"\\u00e9"}\n{"level":"debug"}\n{"level":"b","n":1e999}\r\n'

    kept = written(tmp_path, lines, [processors.Filter("level != 'debug'")])
    assert kept == b'{"b":1.50,"level":"a","t":"\\u00e9"}\n{"level":"b","n":1e999}\n'

    more = written(tmp_path, lines, [processors.Map(set={"n2": "len(level)", "l": "[level]"})])
    assert more.splitlines()[0] == b'{"b":1.50,"level":"a","t":"\\u00e9","n2":1,"l":["a"]}'


def test_a_line_with_blanks_is_written_without_them(tmp_path: Path) -> None:
    got = written(tmp_path, b'{"x": 1.50, "y": [1, 2]}\n{"x":1.50}\n{"x":\t2}\n', [processors.Filter("x > 0")])
    assert got == b'{"x":1.5,"y":[1,2]}\n{"x":1.50}\n{"x":2}\n'


def test_a_line_that_has_a_computed_field_already_is_written_anew(tmp_path: Path) -> None:
    got = written(tmp_path, b'{"x":1.0,"n":5,"z":2.50}\n{"x":2}\n', [processors.Map(set={"n": "x + 1"})])
    assert got == b'{"x":1.0,"n":2.0,"z":2.5}\n{"x":2,"n":3}\n'


def test_what_fails_is_seen_with_all_its_fields(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"x": "a", "unread": [1, 2]}\n')
    report = run(pipeline_of(tmp_path, [processors.Filter("x > 1")]))
    assert report.errors[0]["record"] == "{'x': 'a', 'unread': [1, 2]}"


def test_a_number_beyond_those_of_python_is_infinite_to_who_sees_the_record(tmp_path: Path) -> None:
    lines = '{"x":"a","far":-1e999,"long":' + "9" * 5000 + "}\n"
    (tmp_path / "in.jsonl").write_text(lines)
    report = run(pipeline_of(tmp_path, [processors.Filter("x > 1")]))
    assert report.errors[0]["record"] == "{'x': 'a', 'far': -inf, 'long': inf}"


@pytest.mark.parametrize("policy", ["skip", "collect"])
@pytest.mark.parametrize("depth", range(900, 1001, 4))
def test_a_line_as_deep_as_can_be_fails_by_itself(
    tmp_path: Path, depth: int, policy: Literal["skip", "collect"]
) -> None:
    deep = "[" * depth + "]" * depth
    (tmp_path / "in.jsonl").write_text(f'{{"x":"a","t":{deep}}}\n{{"x":1e308,"t":{deep}}}\n{{"x":1}}\n')
    stages = [processors.Filter("x > 0"), processors.Map(set={"y": "x * 1e308"})]
    report = run(pipeline_of(tmp_path, stages, policy=policy))
    assert report.account.written == 1
    assert report.account.skipped + report.account.collected == 2


def test_computed_fields_count_against_the_bytes_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"a":"abcdefghij"}\n' * 200)
    pipeline = Pipeline("p", checkpoint="none") | sources.Jsonl(path=str(tmp_path / "in.jsonl"))
    pipeline = pipeline | processors.Map(set={"b": "a * 1000"}) | batchers.Fixed(size=1000, max_bytes="100KiB")
    report = run(pipeline | sinks.Jsonl(path=str(tmp_path / "out.jsonl")))
    (batcher,) = [stage for stage in report.stages if stage.name == "fixed"]
    assert batcher.batches >= 200 * 10_000 // (100 * 1024)


def test_a_computed_value_may_hold_whatever_json_can(tmp_path: Path) -> None:
    sets = {"d": "{'a': {'b': [x, '}\\n{', None]}}", "e": "[]", "f": "{}"}
    got = written(tmp_path, b'{"x":"\\n{"}\n{"x":2}\n', [processors.Map(set=sets)])
    assert [msgspec.json.decode(line)["d"]["a"]["b"] for line in got.splitlines()] == [
        ["\n{", "}\n{", None],
        [2, "}\n{", None],
    ]


def test_text_beside_bytes_of_others_is_told_from_them(tmp_path: Path) -> None:
    mixed = [msgspec.Raw(b'{"a":1}'), b"bytes", bytearray(b"more")]
    assert JsonlFormat().encode(mixed) == b'{"a":1}\n"Ynl0ZXM="\n"bW9yZQ=="\n'


def test_text_of_somebody_else_that_is_no_json_fails_by_itself() -> None:
    def fail(record: Any) -> Any:
        raise ValueError("no")

    own = [msgspec.Raw(b"\x81\xa1a\x01"), msgspec.Raw(b"")]
    pipeline = Pipeline("p", checkpoint="none", on_failure="collect") | sources.Iterable(own)
    report = run(pipeline | processors.Call(fail) | sinks.Discard())
    assert report.account.collected == 2


# --- where ------------------------------------------------------------------------------------------------------------

KEEP = processors.Filter("level != 'debug'")


@pytest.mark.parametrize(
    ("stages", "reads"),
    [
        ([], []),
        ([KEEP], ["level"]),
        ([KEEP, processors.Map(set={"a": "http.ms + http.size", "b": "http['ms']"})], ["level", "http"]),
        ([processors.Map(set={"a": "x"}), processors.Filter("a > 1")], ["x"]),
        ([processors.Map(set={"a": "name.upper()"})], ["name"]),
    ],
)
def test_only_fields_that_are_read_are_decoded(tmp_path: Path, stages: list[Processor], reads: list[str]) -> None:
    projection = pipeline_of(tmp_path, stages).topology().projections["in"]
    own = [name for name in projection.type.__struct_fields__ if name not in Projected.__struct_fields__]
    assert sorted(own) == sorted([*reads, *projection.type.__computed__])


class Own(processors.Filter):
    """A filter that does its work in its own way."""

    async def open(self, context: Any) -> Any:
        """Return the work."""
        return await super().open(context)


@pytest.mark.parametrize(
    "stages",
    [
        [processors.Filter(same)],
        [processors.Call(same)],
        [processors.Filter("len(_record) > 1")],
        [processors.Filter("_origin.number > 1")],
        [processors.Filter("_record['a b'] > 1")],
        [processors.Filter("_record['class'] > 1")],
        [processors.Map(set={"x": "x + 1"})],
        [processors.Filter("x > 1"), processors.Map(set={"x": "0"})],
        [processors.Map(rename={"a": "b"})],
        [processors.Map(drop=["a"])],
        [processors.Filter("a", when="b")],
        [Own("a")],
        [processors.Explode(field="a")],
    ],
)
def test_whatever_else_gets_whole_records(tmp_path: Path, stages: list[Processor]) -> None:
    assert not pipeline_of(tmp_path, stages).topology().projections


@pytest.mark.parametrize(
    "sink",
    [
        sinks.Csv(path="out.csv", columns=["a"]),
        sinks.Jsonl(path="out/{level}.jsonl"),
        sinks.Jsonl(path="out.jsonl", when="level == 'a'"),
        sinks.Collect(),
    ],
)
def test_a_sink_that_looks_into_records_gets_whole_ones(tmp_path: Path, sink: Sink) -> None:
    assert not pipeline_of(tmp_path, [KEEP], sink=sink).topology().projections


def test_keys_of_a_batcher_ask_for_whole_records(tmp_path: Path) -> None:
    source, sink = sources.Jsonl(path="in.jsonl"), sinks.Jsonl(path="out.jsonl")
    assert (Pipeline("p") | source | batchers.Fixed(size=2) | sink).topology().projections
    assert not (Pipeline("p") | source | batchers.Fixed(size=2, by="a") | sink).topology().projections
    assert not (Pipeline("p") | source | batchers.Fixed(size=2, order_by="a") | sink).topology().projections


class OwnSource(sources.Jsonl):
    """A source whose reader somebody has their hands on."""

    async def open(self, context: Any) -> Any:
        """Return the reader."""
        return await super().open(context)


class OwnSink(sinks.Jsonl):
    """A sink whose writer somebody has their hands on."""

    async def open(self, context: Any) -> Any:
        """Return the writer."""
        return await super().open(context)


def test_a_source_or_a_sink_of_ones_own_sees_whole_records() -> None:
    for source, sink in ((OwnSource, sinks.Jsonl), (sources.Jsonl, OwnSink)):
        assert not (Pipeline("p") | source(path="in.jsonl") | sink(path="out.jsonl")).topology().projections


def test_a_schema_or_another_encoding_asks_for_whole_records() -> None:
    for source in (
        sources.Jsonl(path="in.jsonl", schema={"a": "int"}),
        sources.Jsonl(path="in.jsonl", encoding="latin-1"),
        WholeJsonl(path="in.jsonl"),
    ):
        assert not (Pipeline("p") | source | sinks.Jsonl(path="out.jsonl")).topology().projections


# --- by itself --------------------------------------------------------------------------------------------------------


def test_one_that_gets_where_it_does_not_belong_is_not_written_in_part() -> None:
    projection = project([Access(frozenset({("a",)}))], "last")
    assert projection is not None
    record = projection.decoder()(b'{"a": 1, "b": 2}')
    record.whole_line = b'{"a": 1, "b": 2}\n'

    with pytest.raises(TypeError):
        msgspec.json.encode(record)
    assert estimate([record]) == len(record.whole_line)
    assert whole(record) == {"a": 1, "b": 2}
    assert list(map(bytes, Seal(projection)([record, {"c": 3}])[:1])) == [b'{"a": 1, "b": 2}']
