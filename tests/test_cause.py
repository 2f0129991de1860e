"""What an exception is called to people, and the line of their own code that it came from."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from pipeline.cause import cause_of, keep_place, place_of, text_of
from pipeline.errors import RecordError

SOURCE = """\
import json
from pipeline.units import parse_size

def load(text):
    return json.loads(text)

def size(text):
    return parse_size(text)
"""


def enrich(path: Path) -> Any:
    """Return a module of a user's."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(SOURCE)
    spec = spec_from_file_location("enrich", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raised(call: Callable[[], Any]) -> Exception:
    """Return what a call raises, as the engine gets it: without the frames above."""
    try:
        call()
    except Exception as error:
        traceback = sys.exc_info()[2]
        assert traceback is not None and traceback.tb_next is not None
        return error.with_traceback(traceback.tb_next.tb_next)
    raise AssertionError("nothing was raised")


def test_the_place_is_the_users_own_line_not_that_of_a_library_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user = enrich(tmp_path / "enrich.py")
    error = raised(lambda: user.load("{"))
    assert place_of(error) == "enrich.py:5"
    assert cause_of(error).startswith("JSONDecodeError: Expecting property name")
    assert text_of(error).endswith("(enrich.py:5)") and text_of(error).startswith("Expecting")
    assert place_of(raised(lambda: user.size("x"))) == "enrich.py:8"


def test_code_elsewhere_is_named_by_its_whole_path(tmp_path: Path) -> None:
    path = tmp_path / "enrich.py"
    assert place_of(raised(lambda: enrich(path).load("{"))) == f"{path}:5"


def test_installed_code_counts_where_it_is_what_was_called(tmp_path: Path) -> None:
    path = tmp_path / "site-packages" / "enrich.py"
    assert place_of(raised(lambda: enrich(path).load("{"))) == f"{path}:5"


def test_an_error_of_ours_has_the_place_of_what_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "enrich.py"

    def wrap() -> None:
        raise RuntimeError("it failed") from raised(lambda: enrich(path).load("{"))

    error = raised(wrap)
    ours = error.with_traceback(None)
    assert place_of(ours) == f"{path}:5"
    try:
        exec("raise error", {"error": ours, "__name__": "pipeline.flow"})
    except RuntimeError:
        pass
    own = ours.__traceback__
    assert own is not None
    assert place_of(ours.with_traceback(own.tb_next)) == f"{path}:5"


def test_an_error_that_came_through_no_code_of_theirs_has_no_place() -> None:
    assert cause_of(ValueError("bad")) == "ValueError: bad"
    assert cause_of(KeyError()) == "KeyError"


def test_a_record_error_says_no_more_than_its_text() -> None:
    assert cause_of(RecordError("no such city")) == "no such city"
    assert cause_of(RecordError()) == "RecordError"


def test_a_place_that_is_kept_outlives_the_traceback(tmp_path: Path) -> None:
    error = raised(lambda: enrich(tmp_path / "enrich.py").load("{"))
    keep_place(error)
    assert place_of(error.with_traceback(None)) == f"{tmp_path / 'enrich.py'}:5"
