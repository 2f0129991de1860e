"""References to the environment and to files: put in once, never parsed, never shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.plan.document import Document, parse
from pipeline.plan.interpolation import Secrets, interpolate
from pipeline.plan.load import load_text
from tests.plan.kinds import registry

CANARY = "c4n4ry-s3cr3t"


def interpolated(
    text: str, environ: Mapping[str, str] | None = None, *, confined: bool = False
) -> tuple[Document, Secrets]:
    """Return a document with its references replaced, and the secrets."""
    document = parse(text, "c.yaml")
    return document, interpolate(document, environ or {}, confined=confined)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${env:A}", "1"),
        ("x${env:A}y${env:A}", "x1y1"),
        ("${env:NOPE:-late}", "late"),
        ("${env:NOPE:-}", ""),
        ("${env:A:-late}", "1"),
        ("$${env:A}", "${env:A}"),
        ("$$${env:A}", "$${env:A}"),
        ("$5 and $A", "$5 and $A"),
        ("${env:LOOP}", "${env:A}"),
    ],
)
def test_a_reference_stands_for_a_text(text: str, value: str) -> None:
    document, _ = interpolated(f"a: '{text}'", {"A": "1", "LOOP": "${env:A}"})

    assert document.data() == {"a": value}
    assert not document.refused


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_value_is_never_parsed_again(value: str) -> None:
    document, _ = interpolated("a: ${env:V}\nb: [x, '${env:V}']\n", {"V": value})

    assert document.data() == {"a": value, "b": ["x", value]}


def test_keys_are_left_alone() -> None:
    document, _ = interpolated("'${env:A}': 1", {"A": "x"})

    assert document.data() == {"${env:A}": 1}


def test_a_file_stands_for_its_text_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cr3t\n")
    document, _ = interpolated(f"a: ${{file:{tmp_path}/key}}")

    assert document.data() == {"a": "s3cr3t"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${env:NOPE}", "environment variable NOPE is not set"),
        ("${env:}", "is not known; expected ${env:NAME}"),
        ("${NOPE}", "write ${env:NOPE}"),
        ("${NOPE:-x}", "write ${env:NOPE:-x}"),
        ("${env:A", "without its '}'"),
        ("${file:/nowhere/at/all}", "No such file or directory"),
        ("${file:/}", "can't be read"),
        ("${env:BYTES}", "characters that no text may have"),
    ],
)
def test_what_can_not_be_put_in_is_refused_with_its_name(text: str, said: str) -> None:
    document, _ = interpolated(f"a: '{text}'", {"BYTES": "\udcff"})

    assert [path for path, _ in document.refused] == [("a",)]
    assert said in document.refused[0][1]


def test_a_large_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    document, _ = interpolated(f"a: ${{file:{tmp_path}/large}}\nb: ${{file:{tmp_path}/bytes}}")

    assert ["64 KiB" in document.refused[0][1], "not UTF-8" in document.refused[1][1]] == [True, True]


@pytest.mark.parametrize("reference", ["${env:A}", "${file:/etc/hostname}", "${env:A:-x}"])
def test_a_confined_config_gets_nothing(reference: str) -> None:
    document, secrets = interpolated(f"a: '{reference}'", {"A": CANARY}, confined=True)

    assert "is not replaced" in document.refused[0][1]
    assert secrets.mask(CANARY) == CANARY


def test_a_secret_of_eight_characters_is_hidden_anywhere_a_shorter_one_is_not() -> None:
    _, secrets = interpolated("a: ${env:LONG}\nb: ${env:SHORT}", {"LONG": "12345678", "SHORT": "1234567"})

    assert secrets.mask("is 12345678 or 1234567?") == "is *** or 1234567?"


def test_lines_and_escaped_forms_of_a_secret_are_hidden() -> None:
    value = "first-line-é\nsecond-line"
    _, secrets = interpolated("a: ${env:A}", {"A": value})

    assert [secrets.mask(text) for text in ("second-line", repr(value), '"first-line-\\u00e9"')] == [
        "***",
        "'***'",
        '"***"',
    ]


CONFIG = """\
name: t
stages:
  - source: jsonl
    with: {path: in.jsonl}
  - processor: filter
    with: {where: a > 1}
  - sink: sqlite
    name: archive
    with: {path: a.db, table: t}
"""
PLACES = [
    ("name: t", "name: 'a b %s'"),
    ("source: jsonl", "source: %s"),
    ("path: in.jsonl", "path: in.jsonl, follow: %s"),
    ("path: in.jsonl", "path: [%s, 7]"),
    ("where: a > 1", "where: a > %s >"),
    ("where: a > 1", "where: '%s('"),
    ("processor: filter", "processor: '%s'"),
    ("processor: filter", "processor: '%s:Class'"),
    ("processor: filter\n    with: {where: a > 1}", "processor: call\n    with: {function: '%s:f'}"),
    ("processor: filter\n    with: {where: a > 1}", "processor: call\n    with: {function: '%s'}"),
    ("name: archive", "name: 'x/%s'"),
    ("name: archive", "name: archive\n    from: '%s'"),
    ("name: archive", "name: archive\n    from: [filter, '%s']"),
    ("name: archive", "name: archive\n    on_failure: '%s'"),
    ("name: archive", "name: archive\n    retry: {attempts: '%s'}"),
    ("name: archive", "name: archive\n    retry: {attempts: 2, backoff: '%s'}"),
    ("name: archive", "name: archive\n    timeout: '%s'"),
    ("table: t", "table: t, mode: '%s'"),
    ("table: t", "table: t, columns: '%s'"),
    ("stages:", "delivery: '%s'\nstages:"),
    ("stages:", "checkpoint: '%s'\nstages:"),
    ("stages:", "drain: '%s'\nstages:"),
]


@pytest.mark.parametrize("secret", [CANARY, "k3y", f"{CANARY}\nover two lines", "os:" + CANARY])
@pytest.mark.parametrize(("old", "new"), PLACES)
def test_no_error_shows_a_secret(old: str, new: str, secret: str) -> None:
    text = CONFIG.replace(old, new % "${env:S}")
    assert text != CONFIG

    with pytest.raises(ConfigError) as raised:
        load_text(text, "c.yaml", registry=registry(), environ={"S": secret})

    shown = str(raised.value)
    assert [part for part in (*secret.splitlines(), *secret.split(":")) if part != "os" and part in shown] == []


def test_no_description_shows_a_secret() -> None:
    text = CONFIG.replace("table: t", "table: '${env:S}'").replace("a > 1", "a > 1 and b == '${env:S}'")
    loaded = load_text(text, "c.yaml", registry=registry(), environ={"S": "k3y"})
    shown: dict[str, Any] = loaded.topology.describe()

    assert loaded.topology.stages["archive"].spec.table == "k3y"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert "k3y" not in str(shown)
    assert shown["sink 'archive': table"] == "***"
