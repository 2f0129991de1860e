"""Whatever a file of cases says, it is read or refused with places; it never breaks the reader."""

import random
import re
from contextlib import suppress
from pathlib import Path

from pipeline.cases.load import case_file, load_cases
from pipeline.errors import ConfigError

CONFIG = """\
name: copied
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: filter
    with: {where: "a > 1"}
  - sink: collect
"""
CASES = """\
cases:
  - name: more
    environment: {A: b}
    mocks: {filter: [{when: "a > 1", unavailable: x, times: 2}, {give: [{a: 1}]}]}
    input: {jsonl: [{a: 1}, {_wait: 2s}, {_failed: x}]}
    output: {collect: []}
    failures: [{stage: filter, error: x, outcome: stop, record: {a: 1}}]
    order: any
    fields: named
"""
WORDS = [*re.findall(r"\w+|\W", CASES), "3", "null", "[]", "{}", "- ", "\n", "~", "1e400", "'", "&a ", "*a"]


def test_the_cases_of_a_config_lie_beside_it() -> None:
    assert case_file("configs/delays.yaml") == "configs/delays.tests.yaml"


def test_no_file_of_cases_breaks_the_reader(tmp_path: Path) -> None:
    chance = random.Random(1)
    config, cases = tmp_path / "copied.yaml", tmp_path / "copied.tests.yaml"
    config.write_text(CONFIG)
    cases.write_text(CASES)
    assert [each.case.name for each in load_cases(str(config), str(cases))] == ["more"]
    for _ in range(150):
        tokens = re.findall(r"\w+|\W", CASES)
        for _ in range(chance.randint(1, 5)):
            tokens[chance.randrange(len(tokens))] = chance.choice(WORDS)
        cases.write_text("".join(tokens))
        with suppress(ConfigError):
            load_cases(str(config), str(cases))
