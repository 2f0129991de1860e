"""The table of the threat model names tests that are there."""

import re

from tests.rules.reading import ROOT


def test_each_control_of_the_threat_model_has_its_test() -> None:
    section = (ROOT / "README.md").read_text().split("## Threat model\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    assert len(rows) >= 12
    assert all(named), "a threat without a test"
    assert {name for names in named for name in names} <= written
