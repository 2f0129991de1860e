"""YAML by the rules of 1.2, with the place of everything."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.document import Mark, parse


def data(text: str) -> Any:
    """Return the data of a text without problems."""
    document = parse(text, "c.yaml")
    assert not document.problems
    return document.data()


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *((word, word) for word in ("no", "No", "NO", "yes", "on", "off", "y", "n", "Off", "tRUE", "nULL")),
        *(
            (word, word)
            for word in ("1:30", "1_000", "2024-01-01", "12:30:45", "0b11", "+.inf.", "1e", "e3", ".", "-a", "0o9")
        ),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("0o17", 15),
        ("0xfF", 255),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5E-3", -0.0015),
        ("-.inf", float("-inf")),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(scalar: str, value: object) -> None:
    found = data(f"a: {scalar}\n")["a"]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("scalar", ['"true"', "'1'", '"null"', "'~'", '"1.5"'])
def test_a_quoted_scalar_is_text(scalar: str) -> None:
    assert data(f"a: {scalar}")["a"] == scalar[1:-1]


def test_nan_is_a_number() -> None:
    assert str(data("a: .NaN")["a"]) == "nan"


def test_keys_that_look_like_words_of_yaml_1_1_are_text() -> None:
    assert data("no: 1\non: 2\ny: 3\n") == {"no": 1, "on": 2, "y": 3}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(encoding: str) -> None:
    document = parse("a: ü\n".encode(encoding), "c.yaml")

    assert document.data() == {"a": "ü"}
    assert document.mark(("a",)) == Mark("c.yaml", 1, 4)


def test_bytes_that_are_no_text_are_a_problem_at_their_place() -> None:
    document = parse("a: ü\nb: ".encode() + b"\xff", "c.yaml")

    assert [str(problem) for problem in document.problems] == ["c.yaml:2:4: not UTF-8: invalid start byte"]


def test_all_mistakes_that_leave_the_text_readable_are_told_at_once() -> None:
    document = parse("a: !x 1\na: 2\n<<: 3\n4: 5\nb: 1e999\n", "c.yaml")

    assert [problem.line for problem in document.problems] == [1, 2, 3, 4, 5]


def test_the_place_of_a_key_and_of_a_value_are_known_at_any_depth() -> None:
    document = parse("stages:\n  - source: csv\n    with: {path: [a, b]}\n", "c.yaml")

    assert document.mark(("stages", 0, "with", "path", 1)) == Mark("c.yaml", 3, 22)
    assert document.mark(("stages", 0, "with", "path"), key=True) == Mark("c.yaml", 3, 12)
    assert document.mark(("stages", 0, "with", "nothing", "here")) == Mark("c.yaml", 3, 11)


@pytest.mark.parametrize(
    ("text", "offset", "place"),
    [
        ("a: one two", 4, (1, 8)),
        ("a: 'it''s one'", 5, (1, 11)),
        (r'a: "\u0041\tx"', 2, (1, 13)),
        ("a: |\n    one\n     two\n", 6, (3, 7)),
        ("a: >\n    one\n    two\n", 5, (1, 4)),
        ("a: one\n  two", 5, (1, 4)),
        ("b: &x one\na: *x", 1, (2, 4)),
    ],
)
def test_the_place_of_a_character_is_exact_where_it_can_be(text: str, offset: int, place: tuple[int, int]) -> None:
    assert parse(text, "c.yaml").within(("a",), offset) == Mark("c.yaml", *place)


def test_an_alias_stands_for_a_copy() -> None:
    document = parse("a: &x {k: [1]}\nb: *x\n", "c.yaml")
    one, other = document.find(("a", "k")), document.find(("b", "k"))

    assert document.data() == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert one is not None
    assert one is not other


def test_a_reference_needs_no_quotes_within_braces() -> None:
    assert data("a: {path: ${env:A:-x, y}/b, c: [${file:d}]}") == {
        "a": {"path": "${env:A:-x, y}/b", "c": ["${file:d}"]}
    }


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), inner),
    max_leaves=20,
)


def written(value: object) -> str:
    """Write data as YAML in its one-line form, texts in single quotes."""
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        return "{" + ", ".join(f"'{name}': {written(each)}" for name, each in entries.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, cast("list[object]", value))) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "~" if value is None else str(value).lower()


@given(_PLAIN)
def test_what_is_written_is_read(value: Any) -> None:
    document = parse(f"a: {written(value)}", "c.yaml")

    assert [problem.text for problem in document.problems] == []
    assert document.data() == {"a": value}
