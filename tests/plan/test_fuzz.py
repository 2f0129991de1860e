"""Whatever is in a config, loading it gives a plan or a `ConfigError`, and soon."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.load import load_text
from pipeline.plan.registry import Registry
from tests.plan.kinds import KINDS

VALID = (
    """\
name: delays
delivery: at_least_once
checkpoint: {path: s.db, interval: 500ms}
stages:
  - source: csv
    with: {path: flights.csv, null_values: ["NA"], types: {dep_delay: float}}
  - batcher: adaptive
    with: {target_latency: 200ms, by: carrier, max_keys: 10}
  - processor: filter
    when: "carrier in ['AA', 'UA']"
    with:
      where: |
        dep_delay is not None
        and dep_delay > 15
    on_failure: dead_letter
    retry: {attempts: 5, backoff: 100ms..10s}
  - processor: map
    name: rest
    from: adaptive
    when: otherwise
    with: {set: &fields {hours: dep_delay / 60}}
  - sink: sqlite
    name: archive
    from: [filter, rest]
    with: {path: "${env:DIR:-.}/delays.db", table: delays}
  - sink: jsonl
    from: rest
    with: {path: 'late.jsonl', roll: {size: 1MiB}}
    channel: {records: 100, bytes: 1MiB}
""",
    "name: t\nstages: [{source: jsonl, with: {path: a}}, {sink: stdout}]\n",
)
FRAGMENTS = (
    *"{}[],:&*!|>'\"%@`#?-\t\n ~\0\x85\ufeff\u2028\ud800\U0010ff7b",
    *(
        "${env:",
        "${file:/etc/passwd}",
        "${",
        "$${x}",
        "}",
        "<<: *fields",
        "*fields",
        "&fields",
        "!!python/name:os.system",
    ),
    *(
        "---\n",
        "...\n",
        "%YAML 1.2\n---\n",
        "9" * 5000,
        "1e999",
        ".inf",
        "0x",
        "[" * 60,
        "- " * 60,
        "? ",
        "\r\n",
        "no",
        "~",
    ),
    *(
        "stages: ",
        "  - sink: stdout\n",
        "    from: archive\n",
        "name: ",
        "with: ",
        "when: otherwise",
        "os:system",
        "a" * 3000,
    ),
    *(
        "__class__",
        "lambda: 0",
        "(" * 300,
        "9**9**9",
        "'a' * 10**9",
        "200",
        "1d",
        "-1ms",
        "from: [",
        "null",
        "processor: call",
    ),
)


def load(text: str | bytes) -> None:
    """Load a config; anything but success and a well-formed error, within a second, is a failure."""
    # What is slow because the machine has other work is not slow twice.
    assert seconds_to_load(text) < 1 or seconds_to_load(text) < 1


def seconds_to_load(text: str | bytes) -> float:
    started = time.process_time()
    try:
        load_text(text, "c.yaml", registry=Registry(Path(__file__).parent, kinds=KINDS), environ={})
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.text, problem
            assert "\n" not in str(problem), problem
            assert problem.line > 0, problem
            assert problem.column > 0, problem
    return time.process_time() - started


def mutants(seed: int, count: int) -> Iterator[str]:
    """Yield valid configs with one to eight random changes."""
    chance = random.Random(seed)
    changes: list[Callable[[random.Random, str], str]] = [
        _cut,
        _put,
        _put,
        _move,
        _repeat_line,
        _swap_lines,
        _character,
    ]
    for _ in range(count):
        text: str = chance.choice(VALID)
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            text = chance.choice(changes)(chance, text)
        yield text


def _cut(chance: random.Random, text: str) -> str:
    start = chance.randint(0, len(text))
    return text[:start] + text[start + chance.randint(1, 30) :]


def _put(chance: random.Random, text: str) -> str:
    at = chance.randint(0, len(text))
    fragment: str = chance.choice(FRAGMENTS)
    return text[:at] + fragment + text[at:]


def _move(chance: random.Random, text: str) -> str:
    start, at = chance.randint(0, len(text)), chance.randint(0, len(text))
    return text[:at] + text[start : start + chance.randint(1, 60)] + text[at:]


def _repeat_line(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    return "\n".join(lines)


def _swap_lines(chance: random.Random, text: str) -> str:
    lines = text.split("\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "\n".join(lines)


def _character(chance: random.Random, text: str) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + chr(chance.choice((chance.randrange(128), chance.randrange(0x11000)))) + text[at + 1 :]


@pytest.mark.parametrize("text", VALID)
def test_what_is_mutated_is_a_right_config(text: str) -> None:
    assert load_text(text, "c.yaml", registry=Registry(kinds=KINDS), environ={}).topology.sinks


def test_300_mutated_configs_give_a_plan_or_an_error() -> None:
    for text in mutants(1, 300):
        load(text)


@pytest.mark.faults
def test_2000_mutated_configs_give_a_plan_or_an_error_in_one_process() -> None:
    for text in mutants(2, 2000):
        load(text)


@given(st.binary(max_size=300))
def test_garbage_gives_an_error(content: bytes) -> None:
    load(content)


@given(st.text(max_size=300) | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))
def test_garbage_of_characters_gives_an_error(text: str) -> None:
    load(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 500_000,
        "- " * 500_000,
        "{a: " * 250_000,
        "? " * 500_000,
        "a: " + "x" * 1_000_000,
        "#" * 1_000_000,
        "a: &x " * 1000,
        "a: 'x" + "\n" * 900_000,
        "a: |\n" + " x\n" * 300_000,
        "\n".join(f"k{i}: v" for i in range(60_000)),
        "x" * 2_000_000,
        "name: t\nstages: [" + "{source: csv}, " * 5000 + "]",
        "name: t\nstages: [" + "{source: jsonl, name: a, from: b, when: 'a > '}, " * 1400 + "]",
        "name: t\nstages: [" + "".join(f"{{sink: jsonl, name: n{i}, from: n{i + 1}}}, " for i in range(200)) + "]",
        "name: t\nstages: ["
        + "".join(f"{{processor: stream, name: n{i}, from: n{i + 1}}}, " for i in range(200))
        + "]",
        "name: t\nstages: [{source: jsonl, with: {path: a}}, "
        + "".join(f"{{processor: stream, name: n{i}}}, " for i in range(198))
        + "{sink: stdout}]",
        "name: t\n" + "\n".join(f"nam{i}: v" for i in range(9_000)),
        "name: t\nstages: [" + f"{{sink: jsonl, from: [{'nn, ' * 90}]}}, " * 199 + "]",
    ],
    ids=range(18),
)
def test_a_config_of_any_size_is_read_within_a_second(text: str) -> None:
    load(text)
