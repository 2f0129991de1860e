import io
import json
import logging
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.watch.log import JsonFormatter, TextFormatter, escape, log_events, masked


def logged(formatter: logging.Formatter, *events: tuple[str, dict[str, Any]]) -> str:
    written = io.StringIO()
    logger = logging.Logger("test", logging.DEBUG)
    output = logging.StreamHandler(written)
    output.setFormatter(formatter)
    logger.addHandler(output)
    tell = log_events(logger)
    for name, fields in events:
        tell(name, fields)
    return written.getvalue()


def hidden(text: str) -> str:
    return text.replace("sesame-open", "***")


def test_a_json_line_has_time_level_event_and_fields() -> None:
    line = json.loads(logged(JsonFormatter(), ("retry", {"stage": "out", "attempt": 2, "wait": 0.5})))
    assert line.pop("ts").endswith("Z")
    assert line == {"level": "warning", "event": "retry", "stage": "out", "attempt": 2, "wait": 0.5}


def test_a_text_line_has_the_same() -> None:
    line = logged(TextFormatter(), ("retry", {"stage": "out", "error": 'no "answer"\n'}))
    assert line.endswith(' warning retry stage=out error="no \\"answer\\"\\n"\n')


@given(st.text(), st.sampled_from([JsonFormatter, TextFormatter]))
def test_no_text_can_begin_another_line(text: str, formatter: Callable[[], logging.Formatter]) -> None:
    said = logged(formatter(), ("warning", {"text": text, text: text}))
    assert said.endswith("\n")
    assert len((said[:-1] + "x").splitlines()) == 1
    assert said[:-1].isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in said[:-1])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_every_value_comes_back_from_the_json_line(value: object) -> None:
    line = json.loads(logged(JsonFormatter(), ("batch", {"value": value})), parse_constant=_refuse)
    assert line["value"] == masked(value, lambda text: text)


def test_secrets_are_hidden_however_deep_they_are() -> None:
    fields = {"text": "a sesame-open b", "more": [{"path": ("sesame-open",)}], "other": ValueError("sesame-open")}
    for formatter in (JsonFormatter(hidden), TextFormatter(hidden)):
        said = logged(formatter, ("warning", fields))
        assert "sesame" not in said
        assert said.count("***") == 3


def test_what_others_log_comes_out_the_same_way() -> None:
    record = logging.LogRecord("shop", logging.WARNING, __file__, 1, "only %d\nleft", (3,), None)
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["event"], line["logger"], line["text"]) == ("warning", "log", "shop", "only 3\nleft")


def test_an_ending_is_as_grave_as_its_exit_code() -> None:
    endings: list[dict[str, Any]] = [
        {"exit_code": 0},
        {"exit_code": 143, "error": ""},
        {"exit_code": 1, "error": "bad"},
    ]
    said = logged(JsonFormatter(), *(("finished", fields) for fields in endings))
    assert [json.loads(line)["level"] for line in said.splitlines()] == ["info", "warning", "error"]


def test_escapes_show_what_a_terminal_would_obey() -> None:
    assert escape("a\tb\x1b[2J\u202e\ud800ü\\") == "a\\tb\\x1b[2J\\u202e\\ud800ü\\"


def _refuse(name: str) -> object:
    raise AssertionError(f"{name} is not JSON")
