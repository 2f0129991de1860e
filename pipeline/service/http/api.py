"""The endpoints of the API and what each of them does."""

from typing import Annotated

from msgspec import Meta, Struct

from pipeline.service.http.endpoint import Call, Endpoint
from pipeline.service.http.letters import LetterQuery, list_letters, replay_letters, show_letter
from pipeline.service.http.shapes import (
    Answer,
    Answers,
    Batches,
    Drain,
    Empty,
    Health,
    LetterList,
    LetterView,
    Overview,
    PipelineView,
    Readiness,
    Replayed,
    ReplayRequest,
    Resize,
    Retarget,
    Series,
    Statistics,
    Submission,
    Submissions,
)
from pipeline.service.http.submitting import submit, submit_many

__all__ = ("ENDPOINTS",)

_PIPELINE = "/api/pipelines/{pipeline}"
_UNKNOWN = {404: "There is no pipeline of this name."}
_STATE = {**_UNKNOWN, 409: "The pipeline is in a state in which that can't be done, or has no such stage."}


_SUBMIT = {
    404: "There is no pipeline of this name.",
    409: "The pipeline has no inlet, does not run, or has no such sink or state.",
    422: "The record failed, or the body has another shape.",
    503: "Nothing was done: too many records wait, the pipeline drains, or what it needs can't be reached.",
    504: "The deadline came before the answer.",
}


class BatchQuery(Struct, forbid_unknown_fields=True):
    """Which batches: the newest, of a stage or of all."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    stage: Annotated[str, Meta(max_length=200)] = ""


async def _health(call: Call) -> Health:
    return Health()


async def _ready(call: Call) -> Readiness:
    found = call.host.readiness()
    # The reasons may hold something of a record.
    return found if call.known else Readiness(found.ready, {})


async def _overview(call: Call) -> Overview:
    return call.host.overview()


async def _pipeline(call: Call) -> PipelineView:
    return call.host[call.path["pipeline"]].view()


async def _start(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.start()
    return hosted.view()


async def _pause(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.pause()
    return hosted.view()


async def _resume(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.resume()
    return hosted.view()


async def _flush(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.flush()
    return hosted.view()


async def _drain(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.drain(call.body.deadline)
    return hosted.view()


async def _statistics(call: Call) -> Statistics:
    return call.host[call.path["pipeline"]].statistics()


async def _batches(call: Call) -> Batches:
    hosted = call.host[call.path["pipeline"]]
    return Batches(hosted.shown.batches.newest(call.query.limit, call.query.stage or None))


async def _series(call: Call) -> Series:
    return Series(call.host[call.path["pipeline"]].shown.points)


async def _letters(call: Call) -> LetterList:
    return await list_letters(call.host[call.path["pipeline"]], call.query)


async def _letter(call: Call) -> LetterView:
    return await show_letter(call.host[call.path["pipeline"]], call.path["letter"])


async def _replay(call: Call) -> Replayed:
    return await replay_letters(call.host[call.path["pipeline"]], call.body)


async def _resize(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.resize(call.body.stage, int(call.body.concurrency))
    return hosted.view()


async def _retarget(call: Call) -> PipelineView:
    hosted = call.host[call.path["pipeline"]]
    hosted.retarget(call.body.latency, call.body.batcher)
    return hosted.view()


async def _submit(call: Call) -> Answer:
    return await submit(call.host[call.path["pipeline"]], call.body)


async def _submit_many(call: Call) -> Answers:
    return await submit_many(call.host[call.path["pipeline"]], call.body)


async def _metrics(call: Call) -> str:
    return call.host.metrics()


ENDPOINTS = (
    Endpoint("GET", "/healthz", "health", "The process answers.", Health, _health),
    Endpoint(
        "GET",
        "/readyz",
        "readiness",
        "Whether every pipeline is ready, part by part.",
        Readiness,
        _ready,
        refusals={503: "*At least one part is not ready."},
    ),
    Endpoint("GET", "/api/pipelines", "overview", "All pipelines with their status.", Overview, _overview),
    Endpoint("GET", _PIPELINE, "pipeline", "One pipeline with its status.", PipelineView, _pipeline, refusals=_UNKNOWN),
    Endpoint(
        "POST",
        f"{_PIPELINE}/start",
        "start",
        "Start a pipeline that has ended, with its config as it is now.",
        PipelineView,
        _start,
        Empty,
        refusals=_STATE,
    ),
    Endpoint(
        "POST", f"{_PIPELINE}/pause", "pause", "Read no further for now.", PipelineView, _pause, Empty, refusals=_STATE
    ),
    Endpoint("POST", f"{_PIPELINE}/resume", "resume", "Read on.", PipelineView, _resume, Empty, refusals=_STATE),
    Endpoint(
        "POST",
        f"{_PIPELINE}/flush",
        "flush",
        "Let the batchers send on what they have gathered.",
        PipelineView,
        _flush,
        Empty,
        refusals=_STATE,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/drain",
        "drain",
        "Finish what is under way and stop.",
        PipelineView,
        _drain,
        Drain,
        refusals=_STATE,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/resize",
        "resize",
        "Let a stage work on more batches at a time, or on fewer.",
        PipelineView,
        _resize,
        Resize,
        refusals=_STATE,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/retarget",
        "retarget",
        "Size batches for another target latency.",
        PipelineView,
        _retarget,
        Retarget,
        refusals=_STATE,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/records",
        "submit",
        "Submit a record to the pipeline's inlet and get what reached the sinks.",
        Answer,
        _submit,
        Submission,
        refusals=_SUBMIT,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/records/many",
        "submit_many",
        "Submit records and get what became of each, in order.",
        Answers,
        _submit_many,
        Submissions,
        refusals=_SUBMIT,
    ),
    Endpoint("GET", "/metrics", "metrics", "All metrics in Prometheus's text format.", str, _metrics),
    Endpoint(
        "GET",
        f"{_PIPELINE}/stats",
        "statistics",
        "What the run comes to, and the rates of the last seconds.",
        Statistics,
        _statistics,
        refusals=_UNKNOWN,
    ),
    Endpoint(
        "GET",
        f"{_PIPELINE}/batches",
        "batches",
        "The newest batches.",
        Batches,
        _batches,
        query=BatchQuery,
        refusals=_UNKNOWN,
    ),
    Endpoint(
        "GET",
        f"{_PIPELINE}/series",
        "series",
        "The last five minutes, a point a second.",
        Series,
        _series,
        refusals=_UNKNOWN,
    ),
    Endpoint(
        "GET",
        f"{_PIPELINE}/letters",
        "letters",
        "Dead letters, the oldest first, without their records.",
        LetterList,
        _letters,
        query=LetterQuery,
        refusals=_UNKNOWN,
    ),
    Endpoint(
        "POST",
        f"{_PIPELINE}/letters/replay",
        "replay",
        "Replay dead letters; a pipeline that runs is drained for that, and started again.",
        Replayed,
        _replay,
        ReplayRequest,
        refusals=_STATE,
    ),
    Endpoint(
        "GET",
        f"{_PIPELINE}/letters/{{letter:int}}",
        "letter",
        "A dead letter with its record.",
        LetterView,
        _letter,
        refusals={404: "There is no pipeline of this name, or no such letter."},
    ),
)
