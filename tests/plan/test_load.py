"""Config files as a whole."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.load import load, load_text
from pipeline.plan.registry import Registry
from tests.plan.kinds import KINDS, registry


def test_a_file_that_can_not_be_read_is_a_problem_of_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: can't be read: No such file or directory$"):
        load(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="can't be read: embedded null byte"):
        load("a\0b")


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"#" * (2**20 + 1))

    with pytest.raises(ConfigError, match=r"large\.yaml:1:1: larger than 1 MiB$"):
        load(tmp_path / "large.yaml")


def test_stages_read_from_the_one_above_unless_they_say_otherwise() -> None:
    text = """\
name: t
stages:
  - source: jsonl
    with: {path: a}
  - source: csv
    with: {path: b}
  - processor: filter
    from: [jsonl, csv]
    with: {where: a}
  - processor: filter
    with: {where: b}
  - sink: jsonl
    when: a > 1
    with: {path: c}
  - sink: stdout
    from: filter-2
    when: otherwise
"""
    plan = load_text(text, "c.yaml", registry=registry(), environ={}).topology

    assert {name: stage.inputs for name, stage in plan.stages.items()} == {
        "jsonl": (),
        "csv": (),
        "filter": ("jsonl", "csv"),
        "filter-2": ("filter",),
        "jsonl-sink": ("filter-2",),
        "stdout": ("filter-2",),
    }
    assert plan.stages["filter"].outputs == ("filter-2",)


def test_the_name_of_a_function_becomes_the_function(tmp_path: Path) -> None:
    (tmp_path / "own_enrich.py").write_text("def add(record):\n    return record\n")
    call = "processor: call, with: {function: own_enrich:add}"
    stages = ("source: jsonl, with: {path: a}", call, "sink: jsonl, with: {path: b}")
    text = "name: t\nstages:\n" + "".join(f"- {{{stage}}}\n" for stage in stages)
    plan = load_text(text, "c.yaml", registry=Registry(tmp_path, kinds=KINDS), environ={}).topology
    spec: Any = plan.stages["call"].spec

    assert spec.function("x") == "x"
    assert "'call' route and split" in plan.guarantees()["jsonl-sink"].why[-1]


def test_a_confined_config_gets_no_code_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "own_confined.py").write_text("raise SystemExit\n")
    text = "name: t\nstages:\n- source: own_confined:Source\n- sink: own_confined:Sink\n"

    with pytest.raises(ConfigError) as raised:
        load_text(text, str(tmp_path / "c.yaml"), environ={}, confined=True)
    assert [problem.text.partition(": ")[2] for problem in raised.value.problems] == [
        "module 'own_confined' may not be imported: no --allow-code names it",
        "module 'own_confined' may not be imported: no --allow-code names it",
    ]


def test_every_stage_knows_its_place() -> None:
    text = "name: t\nstages:\n  - source: jsonl\n    with: {path: a}\n  - sink: stdout\n"
    loaded = load_text(text, "c.yaml", registry=registry(), environ={})

    assert [(stage.mark.line, stage.mark.column) for stage in loaded.stages] == [(3, 5), (5, 5)]


def test_problems_are_sorted_by_their_place_and_none_comes_twice() -> None:
    text = "name: 1\nstages:\n  - sink: stdout\n    a: 1\n  - source: jsonl\n"
    text += "  - sink: jsonl\n    with: {path: 1, mode: x}\nz: 1\n"

    with pytest.raises(ConfigError) as raised:
        load_text(text, "c.yaml", registry=registry(), environ={})
    places = [(problem.line, problem.column) for problem in raised.value.problems]

    assert places == sorted(places)
    assert len(set(raised.value.problems)) == len(places)
    assert {line for line, _ in places} == {1, 3, 4, 5, 7, 8}


def test_a_flood_of_problems_is_cut_off() -> None:
    with pytest.raises(ConfigError) as raised:
        load_text("name: t\n" + "".join(f"x{i}: 1\n" for i in range(5000)), "c.yaml", registry=registry(), environ={})

    assert len(raised.value.problems) == 200


_TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'$"), min_size=1, max_size=20)
_PATHS = st.fixed_dictionaries({"path": _TEXTS | st.lists(_TEXTS, max_size=3)}, optional={"follow": st.booleans()})
_BATCHERS = st.fixed_dictionaries(
    {}, optional={"size": st.integers(1, 10**6), "linger": st.integers(1, 10**6).map(lambda ms: f"{ms}ms")}
)


@given(_PATHS, st.lists(_BATCHERS, max_size=3), st.integers(1, 64))
def test_what_a_config_says_is_what_the_declarations_hold(
    source: dict[str, Any], batchers: list[dict[str, Any]], concurrency: int
) -> None:
    stages = [f"- {{source: jsonl, with: {_written(source)}}}"]
    stages += [f"- {{batcher: fixed, name: b{i}, with: {_written(keys)}}}" for i, keys in enumerate(batchers)]
    stages += [f"- {{sink: http, concurrency: {concurrency}}}"]
    loaded = load_text("name: t\nstages:\n" + "\n".join(stages), "c.yaml", registry=registry(), environ={})
    specs: list[Any] = [stage.spec for stage in loaded.stages]

    assert (specs[0].path, specs[0].follow) == (source["path"], source.get("follow", False))
    assert [spec.size for spec in specs[1:-1]] == [keys.get("size", 500) for keys in batchers]
    assert [spec.linger for spec in specs[1:-1]] == pytest.approx(
        [int(keys["linger"][:-2]) / 1000 if "linger" in keys else 1.0 for keys in batchers]
    )
    assert specs[-1].concurrency == concurrency


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(each)}" for name, each in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"  # pyright: ignore[reportUnknownArgumentType]
    return str(value).lower() if isinstance(value, int) else f"'{value}'"
