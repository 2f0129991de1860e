"""The exceptions of the library, and the exit code that each one ends a run with.

::

    PipelineError                 a run ended badly               exit 1
    ├── ConfigError               usage or config                 exit 2
    ├── LockedError               another process has the state   exit 4
    ├── StateError                missing, corrupt, incompatible  exit 5
    ├── StorageError              disk full, input/output error   exit 6
    ├── DeadlineError             the drain deadline passed       exit 7
    └── StageError                a stage broke its contract      exit 1

    RecordError                   raised by stages: this record is bad, its neighbours are not
    RecordErrors                  raised by sinks: these records of the batch are bad
    Unavailable                   raised by stages: the other side cannot be reached just now

    SubmitError                   what a caller of `submit` is told
    ├── Refused                   the record was not worked on
    │   ├── Overloaded            as many wait as may
    │   ├── DeadlinePassed        the caller's deadline came first
    │   └── Closed                the service drains, has ended or has failed
    ├── Unfinished                the service ended before the record was through
    └── RecordFailed              the record failed; holds its error
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

__all__ = (
    "Closed",
    "ConfigError",
    "DeadlineError",
    "DeadlinePassed",
    "Exit",
    "LockedError",
    "Overloaded",
    "PipelineError",
    "Problem",
    "RecordError",
    "RecordErrors",
    "RecordFailed",
    "Refused",
    "StageError",
    "StateError",
    "StorageError",
    "SubmitError",
    "Unavailable",
    "Unfinished",
)


class Exit(IntEnum):
    """Exit codes of the command, frozen by test."""

    DONE = 0
    FAILED = 1
    CONFIG = 2
    DEAD_LETTERS = 3
    LOCKED = 4
    STATE = 5
    STORAGE = 6
    DEADLINE = 7
    INTERRUPTED = 130
    CLOSED_OUTPUT = 141
    TERMINATED = 143


class PipelineError(Exception):
    """Raised when a run ends badly.

    ``report`` is the report of the run as far as it came, or None when it never started; ``exit_code`` is what the
    command exits with for the same ending.
    """

    exit_code: int = Exit.FAILED
    report: Any = None


class StageError(PipelineError):
    """Raised when a stage breaks its contract, for instance a batch function that returns too few results."""


class LockedError(PipelineError):
    """Raised when another process holds the state file; names its pid."""

    exit_code = Exit.LOCKED


class StateError(PipelineError):
    """Raised when saved state is missing, corrupt or does not fit what is to be resumed. Nothing was touched."""

    exit_code = Exit.STATE


class StorageError(PipelineError):
    """Raised when storage fails under us: no space, an input/output error, a failed fsync. Never retried."""

    exit_code = Exit.STORAGE


class DeadlineError(PipelineError):
    """Raised when a drain did not finish within its deadline; what is left stays unsettled and is read again."""

    exit_code = Exit.DEADLINE


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a config: where it is and what would be right. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{place}: {self.text}" if place else self.text


class ConfigError(PipelineError):
    """Raised for a mistake in a config or in a composition; holds every problem that was found, in file order."""

    exit_code = Exit.CONFIG

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem("", 0, 0, p) for p in problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecordError(Exception):
    """Raised by a stage when one record is at fault; never retried, goes to ``on_failure``."""


class RecordErrors(Exception):
    """Raised by a sink that knows which records of its batch are at fault; nothing of the batch was written.

    ``errors`` maps the index of a record in the batch to its error. The others are written again without them.
    """

    def __init__(self, errors: Mapping[int, Exception]) -> None:
        self.errors = dict(errors)
        super().__init__(f"{len(self.errors)} records of the batch can't be written")


class Unavailable(Exception):
    """Raised by a stage or a function when what it depends on can't be reached; worth another attempt.

    ``retry_after`` is the number of seconds the other side asked us to wait, if it did.
    """

    def __init__(self, text: str = "unavailable", retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class SubmitError(Exception):
    """Raised by `submit` when there is no answer; the service runs on, or its own error says why not."""


class Refused(SubmitError):
    """Raised when nothing was done with the record: it may be submitted again."""


class Overloaded(Refused):
    """Raised when as many records wait as the inlet's ``capacity`` allows."""


class Closed(Refused):
    """Raised when the service takes no more records: it drains, has ended, or has failed."""


class DeadlinePassed(Refused):
    """Raised when the caller's deadline came before the answer.

    ``began`` says whether the record had been taken out of the line: then it is dropped before the next work on it, and
    what was done before stays done.
    """

    def __init__(self, text: str, began: bool = False) -> None:
        super().__init__(text)
        self.began = began


class Unfinished(SubmitError):
    """Raised when the service ended before the record was through: it may have been written, or not."""


class RecordFailed(SubmitError):
    """Raised when the record failed for good, and is settled by that.

    ``error`` is what its stage raised, ``attempts`` how often it was tried, ``letter`` the id of its dead letter where
    ``on_failure: dead_letter`` saved one, ``unavailable`` says that what the stage depends on could not be reached: the
    record is not to blame. ``records`` is what had reached the sinks nonetheless, where one record became several.
    """

    def __init__(
        self, text: str, stage: str, error: BaseException, attempts: int = 1, letter: int | None = None
    ) -> None:
        super().__init__(f"{text} (dead letter {letter})" if letter is not None else text)
        self.stage = stage
        self.error = error
        self.attempts = attempts
        self.letter = letter
        self.unavailable = False
        self.records: list[Any] = []
