"""``pipeline test``: cases in memory and in virtual time."""

import time

import pytest

from tests.cli.commands import Command

CONFIG = """\
name: delays
on_failure: dead_letter
stages:
  - source: jsonl
    with: {path: flights.jsonl}
  - processor: filter
    with: {where: "delay > ${env:LATE:-15}"}
  - batcher: adaptive
    with: {target_latency: 10m}
  - processor: call
    name: weather
    with: {function: "enrich:weather", batch: true}
    retry: {attempts: 3, backoff: 1m..5m}
  - sink: sqlite
    name: archive
    with: {path: delays.db, table: delays}
"""
ENRICH = """\
import asyncio
import os


async def weather(records):
    await asyncio.sleep(0.01)
    return [{**record, "from": os.environ.get("STATION", "?")} for record in records]
"""


@pytest.fixture
def delays(command: Command) -> Command:
    command.write("delays.yaml", CONFIG)
    command.write("enrich.py", ENRICH)
    return command


def test_cases_that_hold_pass_and_nothing_outside_is_touched(delays: Command) -> None:
    delays.write(
        "delays.tests.yaml",
        """\
cases:
  - name: late ones
    input: [{delay: 99}, {_wait: 20m}, {delay: 3}, {delay: 16}]
    output: [{delay: 99, from: "?"}, {delay: 16, from: "?"}]
  - name: another border, and another station
    environment: {LATE: "50", STATION: north}
    input: {jsonl: [{delay: 99}, {delay: 16}]}
    output: {archive: [{delay: 99, from: north}]}
  - name: no weather for some
    mocks:
      weather:
        - {when: "delay > 50", error: no such airport}
        - {unavailable: down, times: 2}
        - {set: {from: mock}}
    input: [{delay: 99}, {delay: 16}, {_failed: no JSON}]
    output: [{delay: 16, from: mock}]
    failures:
      - {stage: weather, error: no such airport, outcome: dead_letter, record: {delay: 99}}
      - {stage: jsonl, error: no JSON}
  - name: a sink that refuses
    mocks: {archive: {when: "delay == 99", error: UNIQUE}}
    input: [{delay: 99}, {delay: 98}]
    output: [{delay: 98, from: "?"}]
    failures: [{stage: archive, error: UNIQUE, outcome: dead_letter}]
""",
    )
    began = time.monotonic()
    ran = delays("test", "delays.yaml")
    assert (ran.code, ran.err) == (0, "4 cases: all passed\n"), ran.out
    assert [line[:6] for line in ran.out.splitlines()] == ["ok    "] * 4
    assert time.monotonic() - began < 20  # twenty minutes, and retries a minute apart, in time of its own
    assert sorted(path.name for path in delays.directory.iterdir() if not path.name.startswith("__")) == [
        "delays.tests.yaml",
        "delays.yaml",
        "enrich.py",
    ]


def test_a_case_that_fails_is_shown_field_by_field_with_its_line(delays: Command) -> None:
    delays.write(
        "delays.tests.yaml",
        """\
cases:
  - name: right
    input: []
    output: []
  - name: wrong
    input: [{delay: 99}]
    output: [{delay: 98, from: "?"}]
""",
    )
    ran = delays("test", "delays.yaml")
    assert ran.code == 1
    assert ran.err == "2 cases: 1 passed, 1 failed\n"
    assert "FAIL  wrong (" in ran.out
    assert "delays.tests.yaml:5\n" in ran.out
    assert "      sink 'archive', record 1:\n        delay: expected 98, got 99\n" in ran.out
    assert delays("test", "delays.yaml", "right").code == 0
    assert "did you mean 'right'?" in delays("test", "delays.yaml", "rigth").err


def test_all_that_is_wrong_with_config_and_cases_is_said_in_one_pass(delays: Command) -> None:
    delays.write("delays.yaml", CONFIG.replace("target_latency", "target_latncy"))
    delays.write(
        "delays.tests.yaml",
        """\
cases:
  - name: a
    inptu: []
    mocks: {weather: {when: "a >", error: x, times: 3}}
  - name: a
    input: [{_wait: 3}]
    output: {archiv: []}
    failures: [{stage: wether}, {}]
""",
    )
    ran = delays("test", "delays.yaml")
    assert ran.code == 2
    assert "delays.yaml:9:12: stage 'adaptive' (batcher adaptive): unknown key 'target_latncy'" in ran.err
    assert "delays.tests.yaml:3:5: case 'a': unknown key 'inptu'; did you mean 'input'?" in ran.err
    assert "delays.tests.yaml:4:" in ran.err
    assert "'times': belongs to 'unavailable'" in ran.err.replace("mocks.weather.", "")
    assert "delays.tests.yaml:8:33: case 'a': key 'failures[1]': missing key 'stage', text" in ran.err

    delays.write("delays.yaml", CONFIG)
    said = delays("test", "delays.yaml").err
    assert "delays.tests.yaml:6:21: case 'a': key 'input[0]._wait': expected a duration with a unit" in said
    assert "key 'output': no sink 'archiv'; did you mean 'archive'?" in said
    assert "key 'failures[0].stage': no stage 'wether'; did you mean 'weather'?" in said
    assert "another case has the same name" in said


def test_a_config_without_cases_says_where_they_would_be(delays: Command) -> None:
    ran = delays("test", "delays.yaml")
    assert ran.code == 2
    assert ran.err.startswith("delays.tests.yaml: can't be read: No such file or directory; ")


def test_a_run_that_stops_at_a_record_passes_where_that_is_expected(delays: Command) -> None:
    delays.write("delays.yaml", CONFIG.replace("on_failure: dead_letter\n", ""))
    delays.write(
        "delays.tests.yaml",
        """\
cases:
  - name: stops
    mocks: {weather: {when: "delay == 50", error: broken}}
    input: [{delay: 40}, {delay: 50}, {delay: 60}]
    output: [{delay: 40}]
    failures: [{stage: weather, error: "RecordError: broken", outcome: stop}]
  - name: never comes back
    mocks: {weather: {unavailable: down}}
    input: [{delay: 40}]
    output: []
    failures: [{stage: weather, error: down, outcome: stop}]
""",
    )
    ran = delays("test", "delays.yaml")
    assert ran.code == 0, ran.out


def test_typed_records_are_made_of_what_a_case_gives(command: Command) -> None:
    command.write(
        "typed.yaml",
        """\
name: typed
stages:
  - source: jsonl
    with: {path: in.jsonl, schema: {id: int, name: str?}}
  - processor: call
    with: {function: "enrich:named"}
  - sink: collect
""",
    )
    command.write("enrich.py", "def named(record):\n    return {'is': record.id, 'called': record.name}\n")
    command.write(
        "typed.tests.yaml", "cases:\n  - name: a\n    input: [{id: 3}]\n    output: [{is: 3, called: null}]\n"
    )
    ran = command("test", "typed.yaml")
    assert ran.code == 0, ran.out


def test_runs_of_keyed_and_adaptive_batches_are_the_same_each_time(command: Command) -> None:
    command.write(
        "keyed.yaml",
        """\
name: keyed
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - batcher: adaptive
    with: {target_latency: 1s, by: k, max_size: 3}
  - processor: call
    with: {function: "count:sizes", batch: true, aggregate: true}
  - sink: collect
""",
    )
    command.write("count.py", "def sizes(records):\n    return [{'k': records[0]['k'], 'size': len(records)}]\n")
    records = ", ".join(f"{{k: {number % 3}}}" for number in range(20))
    command.write("keyed.tests.yaml", f"cases:\n  - name: a\n    input: [{records}]\n    output: []\n")
    seen = {command("test", "keyed.yaml").out.partition("\n")[2] for _ in range(5)}
    assert len(seen) == 1
    assert '"size"' in seen.pop()
