"""What the API takes and gives: one struct a shape, from which its document is made too."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

__all__ = (
    "AccountView",
    "Alert",
    "Answer",
    "Answers",
    "BatchView",
    "Batches",
    "BatcherView",
    "ChannelView",
    "Drain",
    "Empty",
    "Health",
    "LetterList",
    "LetterView",
    "Outcome",
    "Overview",
    "PipelineView",
    "Point",
    "Rates",
    "Readiness",
    "ReadyPart",
    "ReplayRequest",
    "Replayed",
    "Refusal",
    "Resize",
    "Retarget",
    "Series",
    "SourceView",
    "StageView",
    "State",
    "Statistics",
    "Submission",
    "Submissions",
    "Submitted",
)

State = Literal["stopped", "starting", "running", "paused", "draining", "replaying", "finished", "failed"]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Positive = Annotated[float, Meta(gt=0, le=86_400.0)]
# JSON has one kind of number: -3.0 is as whole as -3.
Whole = Annotated[float, Meta(ge=-1000, le=1000, multiple_of=1)]
Count = Annotated[int, Meta(ge=0)]


class Refusal(Struct, omit_defaults=True):
    """Why a request was not done: a code for programs, a sentence for people.

    Of a record that failed also the stage, and the id of its dead letter, if it has one.
    """

    code: str
    reason: str
    stage: str = ""
    letter: int | None = None


class AccountView(Struct):
    """How the records of a run ended, each once: read is the sum of the others."""

    read: Count = 0
    written: Count = 0
    filtered: Count = 0
    skipped: Count = 0
    collected: Count = 0
    dead_lettered: Count = 0
    unsettled: int = 0


class Rates(Struct):
    """Records a second over the last `seconds`, and what became of them."""

    seconds: float = 0.0
    read: float = 0.0
    settled: float = 0.0
    failed: float = 0.0
    batches: float = 0.0
    average_batch: float = 0.0
    error_rate: float = 0.0


class ChannelView(Struct):
    """The inbox of a stage; `fill` is between 0 and 1, or above for a batch larger than the bound."""

    batches: Count
    records: Count
    bytes: Count
    fill: float
    peak_records: Count
    blocked_seconds: float


class BatcherView(Struct):
    """How a batcher sizes its batches. Times in seconds; null where there is no target, or no batch yet."""

    limit: Count = 0
    last: Count = 0
    target: float | None = None
    p50_latency: float | None = None
    p95_latency: float | None = None
    over_target: float = 0.0
    average: float = 0.0
    linger: float | None = None
    reason: str = ""
    triggers: dict[str, int] = field(default_factory=dict[str, int])


class StageView(Struct):
    """A stage of the graph with its numbers. Rates are records a second, shares between 0 and 1, times seconds."""

    name: str
    role: Literal["source", "batcher", "processor", "sink"]
    kind: str
    state: str
    inputs: list[str]
    concurrency: int = 1
    on_failure: str = "stop"
    when: str = ""
    guarantee: str = ""
    records_in: Count = 0
    records_out: Count = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    filtered: Count = 0
    batches: Count = 0
    retries: Count = 0
    failed: dict[str, int] = field(default_factory=dict[str, int])
    in_flight: Count = 0
    mean_seconds: float = 0.0
    p95_seconds: float | None = None
    busy: float = 0.0
    waiting_in: float = 0.0
    waiting_out: float = 0.0
    channel: ChannelView | None = None
    batcher: BatcherView | None = None


class SourceView(Struct):
    """How far a source has come; `total` is null where nobody can know."""

    name: str
    number: int
    unsettled: int
    done: int | None = None
    total: int | None = None
    unit: str = "records"


class Alert(Struct):
    """Something that needs a look, since when (seconds since 1970)."""

    name: str
    text: str
    since: float
    level: Literal["warning", "error"] = "warning"


class Submitted(Struct):
    """What became of submitted records since the pipeline was started: `open` are not answered yet."""

    submitted: Count = 0
    answered: Count = 0
    failed: Count = 0
    late: Count = 0
    refused: Count = 0
    open: Count = 0
    waiting: Count = 0


class PipelineView(Struct, kw_only=True):
    """A pipeline at one moment. Times since 1970 in seconds, `uptime` of the run that is on."""

    name: str
    state: State
    since: float
    error: str = ""
    accepts: bool = False
    run: Count = 0
    lineage: str = ""
    resumed: bool = False
    uptime: float = 0.0
    account: AccountView = field(default_factory=AccountView)
    rates: Rates = field(default_factory=Rates)
    stages: list[StageView] = field(default_factory=list[StageView])
    sources: list[SourceView] = field(default_factory=list[SourceView])
    dead_letters: Count = 0
    bytes_held: Count = 0
    checkpoints: Count = 0
    checkpoint_age: float | None = None
    loop_lag: float = 0.0
    bottleneck: str = ""
    alerts: list[Alert] = field(default_factory=list[Alert])
    submitted: Submitted | None = None


class Point(Struct, kw_only=True):
    """One second of a pipeline, for plots: rates a second, sizes of batches in records, p95 latencies in seconds."""

    at: float
    read: float
    settled: float
    failed: float
    unsettled: int
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    latencies: dict[str, float | None] = field(default_factory=dict[str, float | None])


class Series(Struct):
    """The last minutes of a pipeline, the oldest point first."""

    points: list[Point]


class Overview(Struct):
    """All pipelines of the process."""

    version: str
    at: float
    pipelines: list[PipelineView]


class BatchView(Struct, kw_only=True):
    """A batch that went through: `seconds` it took behind its batcher, `waited` it was open before that."""

    at: float
    stage: str
    size: Count
    seconds: float
    waited: float
    limit: Count
    reason: str = ""
    run: Count = 0
    smooth: bool = True


class Batches(Struct):
    """The newest batches first."""

    batches: list[BatchView]


class Statistics(Struct, kw_only=True):
    """Counts of the run and over all runs of the state file, rates of the last seconds, latencies of its batches.

    `last_hour` is as long as the run is young.
    """

    pipeline: str
    state: State
    uptime: float
    account: AccountView
    rates: Rates
    last_hour: Rates
    submitted: Submitted | None
    success_rate: float | None
    batches: Count
    average_batch: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    throughput: float
    dead_letters: Count
    bottleneck: str


class Submission(Struct, forbid_unknown_fields=True):
    """One record. `deadline` is in seconds from now, `durable` waits for a checkpoint that holds the record."""

    record: Any
    deadline: Positive | None = None
    priority: Whole = 0.0
    durable: bool = False
    answer: Name | None = None


class Submissions(Struct, forbid_unknown_fields=True):
    """Many records, in order."""

    records: Annotated[list[Any], Meta(min_length=1, max_length=10_000)]
    deadline: Positive | None = None
    priority: Whole = 0.0
    durable: bool = False
    answer: Name | None = None


class Answer(Struct):
    """What reached the sink for a record: nothing where it was filtered."""

    records: list[Any]


class Outcome(Struct):
    """What became of one of many records: `records`, or an error."""

    records: list[Any] = field(default_factory=list[Any])
    error: Refusal | None = None


class Answers(Struct):
    """What became of each record, in order."""

    answered: Count
    failed: Count
    outcomes: list[Outcome]


class Resize(Struct, forbid_unknown_fields=True):
    """How many batches a stage works on at a time; records, where it takes them singly."""

    stage: Name
    concurrency: Annotated[float, Meta(ge=1, le=10_000, multiple_of=1)]


class Retarget(Struct, forbid_unknown_fields=True):
    """The latency in seconds that batches are sized for, of one batcher or of all that have a target."""

    latency: Positive
    batcher: Name | None = None


class Drain(Struct, forbid_unknown_fields=True):
    """How to stop: `deadline` in seconds, that of the config if left out."""

    deadline: Positive | None = None


class Empty(Struct, forbid_unknown_fields=True):
    """Nothing needs to be said."""


class LetterView(Struct, kw_only=True):
    """A dead letter; `record` as the failing stage received it, left out of lists."""

    id: int
    at: float
    stage: str
    error_type: str
    error: str
    attempts: int
    position: str
    key: str
    source: str
    number: int
    run: int
    replays: int = 0
    record: Any = None


class LetterList(Struct):
    """Dead letters, the oldest first, and how many there are like that in all."""

    total: Count
    letters: list[LetterView]


class ReplayRequest(Struct, forbid_unknown_fields=True):
    """Which letters to replay: of a stage, with a type of error or a part of its text, of these ids; all if left out.

    `force` takes those too that failed again and again.
    """

    stage: Annotated[str, Meta(max_length=200)] = ""
    error: Annotated[str, Meta(max_length=1000)] = ""
    ids: Annotated[list[Annotated[float, Meta(ge=0, le=2**53, multiple_of=1)]], Meta(max_length=10_000)] | None = None
    force: bool = False


class Replayed(Struct):
    """What became of replayed letters, in numbers and in words; `notes` say which were left where they are."""

    text: str
    account: AccountView
    notes: list[str]
    error: str = ""


class ReadyPart(Struct):
    """Whether one part is ready, and if not why."""

    ready: bool
    state: str
    reason: str = ""


class Readiness(Struct):
    """Whether all parts are ready, each by its name."""

    ready: bool
    parts: dict[str, ReadyPart]


class Health(Struct):
    """The process answers."""

    status: Literal["ok"] = "ok"
