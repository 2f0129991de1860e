"""What kind of failure an exception is, and what `retry.on` makes of it."""

import errno
import json
from typing import Any

import pytest

from pipeline.control.policy import Kind, classify, meanings, retry_after
from pipeline.errors import RecordError, StorageError, Unavailable


class Answer:
    status_code = 503

    def __init__(self, asked: str) -> None:
        self.headers = {"Retry-After": asked}


class AnsweredError(Exception):
    def __init__(self, asked: str = "7") -> None:
        super().__init__(asked)
        self.response = Answer(asked)


def test_what_is_named_means_what_is_said_and_so_do_its_subclasses() -> None:
    meant = meanings({"LookupError": "unavailable", "json.JSONDecodeError": "unavailable", "OSError": "record"})
    assert classify(KeyError("x"), meant) is Kind.UNAVAILABLE
    assert classify(json.JSONDecodeError("x", "", 0), meant) is Kind.UNAVAILABLE
    assert classify(ConnectionError(), meant) is Kind.RECORD
    assert classify(ValueError(), meant) is Kind.UNKNOWN


def test_the_nearest_class_decides() -> None:
    meant = meanings({"LookupError": "unavailable", "KeyError": "record"})
    assert classify(KeyError(), meant) is Kind.RECORD
    assert classify(IndexError(), meant) is Kind.UNAVAILABLE


@pytest.mark.parametrize("error", [StorageError("full"), OSError(errno.ENOSPC, "full"), MemoryError()])
def test_a_fault_stays_one_whatever_is_said(error: BaseException) -> None:
    assert classify(error, meanings({"Exception": "unavailable", "OSError": "record"})) is Kind.FAULT


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(Unavailable("x", 3.0), 3.0), (AnsweredError(), 7.0), (RecordError("x"), None), (ValueError(), None)],
)
def test_how_long_the_other_side_asks_to_wait(error: Any, seconds: float | None) -> None:
    assert retry_after(error, 0.0) == seconds


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2115 07:28:30 GMT", None),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("soon", None),
        ("-5", None),
        ("1234567", None),
        ("", None),
    ],
)
def test_a_date_is_waited_for_by_the_clock_on_the_wall_and_nonsense_is_ignored(
    asked: str, seconds: float | None
) -> None:
    assert retry_after(AnsweredError(asked), 1445412480.0) == seconds
