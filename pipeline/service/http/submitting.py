"""Records that are submitted over HTTP, and how their answers and errors are told."""

from typing import Any

import msgspec

from pipeline.errors import Closed, ConfigError, DeadlinePassed, Overloaded, RecordFailed, SubmitError
from pipeline.service.http.hosted import Hosted
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import Answer, Answers, Outcome, Refusal, Submission, Submissions

__all__ = ("submit", "submit_many")


async def submit(hosted: Hosted, wanted: Submission) -> Answer:
    """Submit a record and return what reached the sinks.

    :raises RequestRefused: when there is no answer; says whether it is worth another try.
    """
    service = hosted.service
    try:
        answer = await service.submit(
            wanted.record,
            deadline=wanted.deadline,
            priority=int(wanted.priority),
            durable=wanted.durable,
            answer=wanted.answer,
        )
    except (SubmitError, ConfigError) as error:
        raise _refused(hosted, error) from error
    return Answer([_plain(record) for record in answer.records])


async def submit_many(hosted: Hosted, wanted: Submissions) -> Answers:
    """Submit records and return what became of each, in order.

    :raises RequestRefused: when none was taken.
    """
    service = hosted.service
    try:
        answers = await service.submit_many(
            wanted.records,
            deadline=wanted.deadline,
            priority=int(wanted.priority),
            durable=wanted.durable,
            answer=wanted.answer,
        )
    except (SubmitError, ConfigError) as error:
        raise _refused(hosted, error) from error
    outcomes = [
        Outcome(error=_refusal(_refused(hosted, answer.error)))
        if answer.error is not None
        else Outcome([_plain(record) for record in answer.records])
        for answer in answers
    ]
    failed = sum(1 for outcome in outcomes if outcome.error is not None)
    return Answers(len(outcomes) - failed, failed, outcomes)


def _refused(hosted: Hosted, error: SubmitError | ConfigError) -> RequestRefused:
    text = hosted.loaded.secrets.mask(str(error))
    if isinstance(error, RecordFailed):
        status, code = (503, "unavailable") if error.unavailable else (422, "record_failed")
        return RequestRefused(code, text, status, stage=error.stage, letter=error.letter)
    if isinstance(error, Overloaded):
        return RequestRefused("overloaded", text, 503, {"retry-after": "1"})
    if isinstance(error, DeadlinePassed):
        return RequestRefused("deadline", text, 504)
    if isinstance(error, Closed):
        return RequestRefused("closed", text, 503)
    return RequestRefused("config", text) if isinstance(error, ConfigError) else RequestRefused("unfinished", text, 503)


def _refusal(refused: RequestRefused) -> Refusal:
    return Refusal(refused.code, refused.reason, refused.stage, refused.letter)


def _plain(record: Any) -> msgspec.Raw:
    """Return a record as JSON; as text what JSON can't hold."""
    try:
        return msgspec.Raw(msgspec.json.encode(record, enc_hook=str))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(repr(record)[:10_000].encode("utf-8", "replace").decode()))
