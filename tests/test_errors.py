"""Errors: the exit code of each, and how it is said."""

import pytest

from pipeline import errors
from pipeline.errors import ConfigError, Exit, PipelineError, Problem, RecordErrors, Unavailable


def test_exit_codes_are_frozen() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "CONFIG": 2,
        "DEAD_LETTERS": 3,
        "LOCKED": 4,
        "STATE": 5,
        "STORAGE": 6,
        "DEADLINE": 7,
        "INTERRUPTED": 130,
        "CLOSED_OUTPUT": 141,
        "TERMINATED": 143,
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("PipelineError", 1),
        ("StageError", 1),
        ("ConfigError", 2),
        ("LockedError", 4),
        ("StateError", 5),
        ("StorageError", 6),
        ("DeadlineError", 7),
    ],
)
def test_each_error_ends_a_run_with_its_code(name: str, code: int) -> None:
    kind: type[PipelineError] = getattr(errors, name)
    assert issubclass(kind, PipelineError)
    assert kind("why").exit_code == code
    assert kind("why").report is None


def test_what_stages_raise_ends_no_run_by_itself() -> None:
    for kind in (errors.RecordError, errors.RecordErrors, errors.Unavailable):
        assert not issubclass(kind, PipelineError)


def test_a_problem_is_said_with_as_much_of_its_place_as_is_known() -> None:
    assert str(Problem("a.yaml", 3, 7, "wrong")) == "a.yaml:3:7: wrong"
    assert str(Problem("a.yaml", 0, 0, "wrong")) == "a.yaml: wrong"
    assert str(Problem("", 0, 0, "wrong")) == "wrong"


def test_a_config_error_holds_every_problem() -> None:
    error = ConfigError(Problem("a.yaml", 1, 2, "one"), "two")
    assert str(error) == "a.yaml:1:2: one\ntwo"
    assert [problem.text for problem in error.problems] == ["one", "two"]


def test_record_errors_name_the_records() -> None:
    error = RecordErrors({3: ValueError("x"), 5: KeyError("y")})
    assert sorted(error.errors) == [3, 5]
    assert str(error) == "2 records of the batch can't be written"


def test_unavailable_may_say_how_long_to_wait() -> None:
    assert Unavailable().retry_after is None
    assert Unavailable("busy", 2.5).retry_after == 2.5
    assert str(Unavailable("busy")) == "busy"
