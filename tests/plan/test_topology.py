"""The plan: what sinks promise and why, what must stay the same, what is held at worst."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.plan.keys import CheckpointConfig, PipelineConfig
from pipeline.plan.load import load_text
from pipeline.plan.topology import PlannedStage, Topology, build_topology
from pipeline.stage import ChannelBounds, Retry, Stage
from stages.sources.iterable import Iterable
from tests.plan import kinds
from tests.plan.kinds import registry


def planned(name: str, spec: Stage, *inputs: str) -> PlannedStage:
    """Return a stage as a composition in Python would plan it."""
    return PlannedStage(name, spec.role, type(spec).__name__.lower(), spec, tuple(inputs))


def in_a_row(*specs: Stage) -> list[PlannedStage]:
    """Return stages that each read from the one before, named by letters."""
    names = "abcdefgh"
    return [planned(names[i], spec, *names[max(i - 1, 0) : i]) for i, spec in enumerate(specs)]


def topology(*specs: Stage, **keys: Any) -> Topology:
    """Return the plan of stages in a row."""
    return build_topology("t", PipelineConfig(name="t", **keys), in_a_row(*specs))


def problems(stages: Sequence[PlannedStage], **keys: Any) -> list[str]:
    """Return what is wrong with a composition."""
    with pytest.raises(ConfigError) as raised:
        build_topology("t", PipelineConfig(name="t", **keys), stages)
    return [problem.text for problem in raised.value.problems]


SOURCE = kinds.Jsonl(path="in.jsonl")
SINK = kinds.JsonlSink(path="out.jsonl")


def function(record: Any) -> Any:
    """Return the record."""
    return record


class Registered:
    """An object that only Python can give."""


# --- what sinks promise ---


@pytest.mark.parametrize(
    ("specs", "text", "why"),
    [
        ((SOURCE, SINK), "exactly once", ["the sink is cut back to the last checkpoint"]),
        (
            (SOURCE, kinds.Fixed(), kinds.Sqlite(path="a.db", table="t")),
            "exactly once",
            ["rows and the numbers they settle are in one transaction"],
        ),
        (
            (SOURCE, kinds.Call(function=function), kinds.Filter(where="a > 1"), kinds.Filter(where=function), SINK),
            "exactly once",
            [
                "the sink is cut back to the last checkpoint",
                "supposes that 'b', 'd' route and split a record the same way each time",
            ],
        ),
        (
            (SOURCE, kinds.Http()),
            "at least once: records since the last checkpoint may come again",
            ["sink 'b' (http) has no position to go back to"],
        ),
        (
            (SOURCE, kinds.Upsert()),
            "at least once, and repeats are invisible",
            ["sink 'b' (upsert) writes a record that comes again under the same key"],
        ),
        (
            (SOURCE, kinds.Call(function=function, batch=True, aggregate=True), SINK),
            "at least once: records since the last checkpoint may come again",
            ["processor 'b' (call) makes aggregates, whose groups differ when records come again"],
        ),
        (
            (SOURCE, kinds.Stream(), SINK),
            "at least once: records since the last checkpoint may come again",
            ["processor 'b' (stream) does not promise the same results when records come again"],
        ),
        (
            (kinds.Jsonl(path="-"), SINK),
            "no repeats, but what was unsettled in a crash is gone",
            ["source 'a' (jsonl) can't be read again"],
        ),
        (
            (SOURCE, kinds.Stdout()),
            "no promise after a crash: every run starts anew",
            ["sink 'b' (stdout) has no position to go back to", "there is no checkpoint"],
        ),
    ],
)
def test_a_sink_promises_what_the_way_to_it_can_give(specs: tuple[Stage, ...], text: str, why: list[str]) -> None:
    plan = topology(*specs)
    (guarantee,) = plan.guarantees().values()

    assert (guarantee.text, guarantee.why) == (text, why)
    assert guarantee.exact == (text == "exactly once")
    assert plan.delivery_of(plan.sinks[0].name) == ("exactly_once" if guarantee.exact else "at_least_once")


def test_at_least_once_is_given_when_it_is_asked_for() -> None:
    plan = topology(SOURCE, SINK, delivery="at_least_once")

    assert plan.delivery_of("b") == "at_least_once"
    assert plan.guarantees()["b"].why == ["'delivery: at_least_once' asks for no more"]


def test_one_way_does_not_weaken_another() -> None:
    stages = [
        planned("in", SOURCE),
        planned("sum", kinds.Call(function=function, aggregate=True), "in"),
        planned("sums", kinds.JsonlSink(path="sums.jsonl"), "sum"),
        planned("all", SINK, "in"),
    ]
    plan = build_topology("t", PipelineConfig(name="t"), stages)

    assert {name: guarantee.exact for name, guarantee in plan.guarantees().items()} == {"sums": False, "all": True}


def test_every_source_of_a_sink_must_replay() -> None:
    stages = [planned("in", SOURCE), planned("typed", kinds.Jsonl(path="-")), planned("out", SINK, "in", "typed")]

    assert not build_topology("t", PipelineConfig(name="t"), stages).guarantees()["out"].exact
    assert problems(stages, delivery="exactly_once") == [
        "key 'delivery': exactly_once can't hold at sink 'out': source 'typed' (jsonl) can't be read again"
    ]


# --- checkpoints ---


@pytest.mark.parametrize(
    ("specs", "keys", "path"),
    [
        ((SOURCE, SINK), {}, ".pipeline/t.db"),
        ((SOURCE, SINK), {"checkpoint": CheckpointConfig(interval=5)}, ".pipeline/t.db"),
        ((SOURCE, SINK), {"checkpoint": CheckpointConfig(path="x/s.db")}, "x/s.db"),
        ((SOURCE, SINK), {"checkpoint": "none"}, None),
        ((SOURCE, kinds.Stdout()), {}, None),
        ((SOURCE, kinds.Stdout()), {"checkpoint": CheckpointConfig()}, ".pipeline/t.db"),
        ((SOURCE, kinds.Stdout()), {"on_failure": "dead_letter"}, ".pipeline/t.db"),
        ((SOURCE, kinds.Filter(where="a", on_failure="dead_letter"), kinds.Stdout()), {}, ".pipeline/t.db"),
    ],
)
def test_state_is_saved_where_there_is_anything_to_save(
    specs: tuple[Stage, ...], keys: dict[str, Any], path: str | None
) -> None:
    assert topology(*specs, **keys).checkpoint_path == path


# --- stages with state ---


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (kinds.Fixed(by="carrier"), "batcher 'b' gathers records with 'by'"),
        (kinds.Fixed(order_by="at"), "batcher 'b' gathers records with 'order_by'"),
        (kinds.Call(function=function, ordered=False, concurrency=2), "processor 'b' has 'ordered: false'"),
    ],
)
def test_a_stage_with_state_is_refused_behind_one_that_changes_the_order(before: Stage, why: str) -> None:
    stages = in_a_row(SOURCE, before, kinds.Filter(where="a"), kinds.Dedupe(by="id"), SINK)

    assert problems(stages) == [f"stage 'd' (processor dedupe): keeps state and needs its input in order, but {why}"]


@pytest.mark.parametrize(
    "before",
    [kinds.Fixed(), kinds.Call(function=function, concurrency=4), kinds.Call(function=function, ordered=False)],
)
def test_a_stage_with_state_is_welcome_where_order_is_kept(before: Stage) -> None:
    assert topology(SOURCE, before, kinds.Dedupe(by="id"), SINK).stages["c"].stateful()


def test_ways_that_part_and_meet_again_are_no_order() -> None:
    stages = [
        planned("in", SOURCE),
        planned("one", kinds.Filter(where="a"), "in"),
        planned("two", kinds.Filter(where="b"), "in"),
        planned("once", kinds.Dedupe(by="id"), "one", "two"),
        planned("out", SINK, "once"),
    ]

    assert problems(stages) == [
        "stage 'once' (processor dedupe): keeps state and needs its input in order, but records of one source come to "
        "it by several ways"
    ]


def test_a_stage_with_state_has_one_source_under_exactly_once() -> None:
    stages = [
        planned("one", SOURCE),
        planned("two", kinds.Jsonl(path="b")),
        planned("once", kinds.Dedupe(by="id"), "one", "two"),
        planned("out", SINK, "once"),
    ]

    assert build_topology("t", PipelineConfig(name="t"), stages).stages["once"].stateful()
    assert problems(stages, delivery="exactly_once") == [
        "stage 'once' (processor dedupe): keeps state, and under exactly_once such a stage has one source, not 2"
    ]


# --- what must stay and what may change ---


def test_the_fingerprint_is_of_sources_sinks_and_stages_with_state() -> None:
    plan = topology(SOURCE, kinds.Fixed(), kinds.Filter(where="a"), kinds.Dedupe(by="id"), SINK)

    assert plan.fingerprint() == {
        "a": {"role": "source", "kind": "jsonl", "path": "in.jsonl"},
        "d": {"role": "processor", "kind": "dedupe"},
        "e": {"role": "sink", "kind": "jsonlsink", "path": "out.jsonl"},
    }


def test_the_description_tells_what_is_not_as_it_is_by_default() -> None:
    spec = kinds.Call(function=function, retry=Retry(attempts=3), concurrency=4)
    said = topology(SOURCE, kinds.Fixed(size=800), spec, SINK, drain=5).describe()

    assert {label: value for label, value in said.items() if "'b'" in label or "'c'" in label or "'t'" in label} == {
        "pipeline 't'": "pipeline",
        "pipeline 't': drain": "5",
        "batcher 'b'": "fixed",
        "batcher 'b': from": "a",
        "batcher 'b': size": "800",
        "processor 'c'": "call",
        "processor 'c': from": "b",
        "processor 'c': function": "function",
        "processor 'c': retry": "attempts 3, backoff (0.1, 10.0), deadline None, on {}",
        "processor 'c': concurrency": "4",
    }


@pytest.mark.parametrize("records", [[{"card": "4111"}] * 20_000, ({"card": "4111"},) * 20_000, [{"card": "4111"}]])
def test_the_description_of_records_given_in_python_holds_none_of_them(records: Any) -> None:
    said = topology(Iterable(records), SINK).describe()

    assert said["source 'a': records"] == f"{type(records).__name__} of {len(records)}"


def test_records_nested_however_deep_can_be_planned() -> None:
    nested: list[Any] = []
    for _ in range(3000):
        nested = [nested]

    assert topology(Iterable([{"v": nested}]), SINK).describe()["source 'a': records"] == "list of 1"


def test_the_description_of_a_value_only_python_can_give_is_its_type_and_length() -> None:
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    given = {"few": [1, function], "many": list(range(20_000)), "deep": deep, "other": Registered()}
    said = topology(SOURCE, kinds.Call(function=function, arguments=given), SINK).describe()

    text = "{'few': [1, 'function'], 'many': 'list of 20000', 'deep': 'list of 1', 'other': 'Registered'}"
    assert said["processor 'b': arguments"] == text


def test_the_worst_case_of_memory_adds_up_and_is_bounded_by_the_key() -> None:
    small = ChannelBounds(bytes=2**20)
    plan = topology(
        SOURCE, kinds.Fixed(channel=small, max_bytes=2**21, by="k", max_keys=10), kinds.Stdout(channel=small)
    )

    assert plan.memory().parts == (
        ("reading of source 'a'", 2 * 2**20),
        ("channel into batcher 'b'", 2**20),
        ("open batches of batcher 'b'", 10 * 2**21),
        ("channel into sink 'c'", 2**20),
        ("batches in sink 'c'", 2**20),
    )
    assert plan.memory().total == 25 * 2**20
    assert topology(*(s.spec for s in plan.stages.values()), memory=2**22).memory().total == 2**22 + 2 * 2**20


# --- compositions in Python ---


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            [],
            [
                "no source; a pipeline needs one, like 'source: jsonl'",
                "no sink; a pipeline needs one, like 'sink: jsonl'",
            ],
        ),
        (
            in_a_row(kinds.Jsonl(path=3), SINK),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            ["stage 'a' (source jsonl): key 'path': expected text or a list of text, got a whole number"],
        ),
        (
            in_a_row(SOURCE, kinds.Filter(where="a >"), SINK),
            ["stage 'b' (processor filter): key 'where': not an expression: invalid syntax"],
        ),
        (
            in_a_row(SOURCE, kinds.Adaptive(target_latency=-1), SINK),
            ["stage 'b' (batcher adaptive): key 'target_latency': expected a number that is finite and not negative"],
        ),
        (
            in_a_row(SOURCE, kinds.Adaptive(target_latency=0.2, min_size=9, max_size=8), SINK),
            ["stage 'b' (batcher adaptive): key 'min_size': expected at most max_size, 8"],
        ),
        (
            in_a_row(SOURCE, kinds.JsonlSink(path="")),
            ["stage 'b' (sink jsonlsink): key 'path': expected something, got nothing"],
        ),
        (
            in_a_row(SOURCE, kinds.Call(function=function, retry=Retry(attempts=0)), SINK),
            ["stage 'b' (processor call): key 'retry.attempts': expected at least 1"],
        ),
        (
            [planned("x", SOURCE), planned("x", kinds.Filter(where="a"), "x"), planned("y", SINK, "x")],
            ["stage 'x' (processor filter): key 'name': another stage has the same name; give each its own 'name'"],
        ),
        (
            in_a_row(SOURCE, kinds.JsonlSink(path="a", concurrency=2)),
            ["stage 'b' (sink jsonlsink): key 'concurrency': takes one batch at a time; expected 1"],
        ),
        (
            in_a_row(SOURCE, kinds.JsonlSink(path="a", when="otherwise")),
            [
                "stage 'b' (sink jsonlsink): key 'when': 'otherwise' takes what no sibling took, "
                "and nothing else reads from 'a'"
            ],
        ),
    ],
)
def test_a_composition_is_checked_like_a_config(stages: list[PlannedStage], said: list[str]) -> None:
    assert sorted(set(problems(stages))) == sorted(said)


def test_numbers_and_functions_are_welcome_in_python() -> None:
    source = kinds.Iterable_(records=lambda: [1])
    plan = topology(
        source, kinds.Adaptive(target_latency=0.2, by=function), kinds.Filter(where=function), kinds.Stdout()
    )

    assert list(plan.stages) == ["a", "b", "c", "d"]


def test_stages_are_in_the_order_of_the_data_however_they_are_listed() -> None:
    stages = [planned("out", SINK, "late"), planned("late", kinds.Filter(where="a"), "in"), planned("in", SOURCE)]
    plan = build_topology("t", PipelineConfig(name="t"), stages)

    assert list(plan.stages) == ["in", "late", "out"]
    assert {name: stage.outputs for name, stage in plan.stages.items()} == {
        "in": ("late",),
        "late": ("out",),
        "out": (),
    }
    assert [stage.name for stage in plan.upstream("out")] == ["in", "late"]


def test_yaml_and_python_make_the_same_plan() -> None:
    text = """\
name: t
stages:
  - source: jsonl
    name: a
    with: {path: in.jsonl}
  - batcher: adaptive
    name: b
    with: {target_latency: 200ms, max_bytes: 1MiB}
  - sink: sqlite
    name: c
    with: {path: a.db, table: t}
    retry: {attempts: 3, backoff: 100ms..1s}
"""
    loaded = load_text(text, "c.yaml", registry=registry(), environ={}).topology
    composed = topology(
        SOURCE,
        kinds.Adaptive(target_latency=0.2, max_bytes=2**20),
        kinds.Sqlite(path="a.db", table="t", retry=Retry(attempts=3, backoff=(0.1, 1.0))),
    )

    def without_names(plan: Topology) -> Mapping[str, str]:
        return {label: value for label, value in plan.describe().items() if not label.endswith(": name")}

    assert without_names(loaded) == without_names(composed)
    assert loaded.fingerprint() == composed.fingerprint()
    assert loaded.guarantees() == composed.guarantees()
