"""The metrics of a run by name: what each counter and each status is called outside, in Prometheus's conventions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.watch.exposition import Metric, counter, gauge, histogram, label_name
from pipeline.watch.metrics import BatcherMetrics, Histogram, StageMetrics
from pipeline.watch.report import ChannelStatus, SourceStatus, Status

__all__ = ("measures",)

Labels = dict[str, str]

_ENDS = {
    "stop": "stopped",
    "dead_letter": "dead_lettered",
    "collect": "collected",
    "skip": "skipped",
}
_BREAKER = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
_LAW = {
    "pipeline_batch_limit": ("limit", "Records that the next batch may hold."),
    "pipeline_batch_model_fixed_seconds": ("model_fixed_seconds", "What a batch costs whatever its size, as learned."),
    "pipeline_batch_model_record_seconds": ("model_per_record_seconds", "What a record of a batch costs, as learned."),
    "pipeline_batch_headroom_ratio": ("headroom", "Room left for slow batches, as a multiple of the predicted time."),
    "pipeline_batch_linger_seconds": ("linger_seconds", "How long a batch of one record may wait for others."),
    "pipeline_batch_infeasible": ("infeasible", "1 while even the smallest batch takes longer than the target."),
}


def measures(
    status: Status,
    stages: Iterable[StageMetrics],
    laws: Mapping[str, Mapping[str, float]],
    about: Mapping[str, Any] | None = None,
) -> list[Metric]:
    """Return all metrics of a run at one moment.

    ``laws`` is the status of each batcher's law by stage; ``about`` are words about the run (its number, lineage,
    metadata), labels of ``pipeline_info``. Every value has the label ``pipeline``, those of a stage ``stage``.
    """
    named = {"pipeline": status.pipeline}
    found = [*stages]
    said = {label_name(name): str(value) for name, value in (about or {}).items()}
    return [
        gauge("pipeline_info", "What is known of the run; always 1.", [(named | said, 1.0)], "max"),
        *_run(status, named),
        *_account(status, named),
        *_stages(found, named),
        *_batchers([(each.name, each.batcher) for each in found if each.batcher is not None], found, named),
        *_laws(laws, named),
        *_channels(status.channels, named),
        *_sources(status.sources, named),
        *_breakers(found, named),
    ]


def _run(status: Status, named: Labels) -> Iterator[Metric]:
    for name, text, value, together in (
        ("pipeline_running", "1 while the run reads or drains.", status.state in ("running", "draining"), "sum"),
        ("pipeline_uptime_seconds", "Seconds since the run began.", status.seconds, "max"),
        ("pipeline_memory_bytes", "Bytes of the records between sources and sinks.", status.bytes_held, "sum"),
        ("pipeline_dead_letters", "Dead letters in the state file.", status.dead_letters, "sum"),
        ("pipeline_checkpoint_age_seconds", "Seconds since the last checkpoint.", status.checkpoint_age, "max"),
        ("pipeline_checkpoint_postponed", "1 while a checkpoint can't be taken.", bool(status.postponed), "max"),
        ("pipeline_loop_lag_seconds", "How late the event loop was when last looked at.", status.loop_lag, "max"),
        ("pipeline_alerts", "Alerts that are raised now.", len(status.alerts), "sum"),
        ("pipeline_window_records_per_second", "Records that ended, in the last minute.", status.lately.rate, "sum"),
        ("pipeline_window_error_ratio", "The share that failed, in the last minute.", status.lately.error_rate, "max"),
    ):
        if value is not None:
            yield gauge(name, text, [(named, float(value))], "max" if together == "max" else "sum")
    yield counter("pipeline_checkpoints_total", "Checkpoints saved.", [(named, status.checkpoints)])


def _account(status: Status, named: Labels) -> Iterator[Metric]:
    ends = status.account.as_dict()
    unsettled = ends.pop("unsettled")
    yield counter(
        "pipeline_source_records_total",
        "Source records by how they ended, each once; read is all of them.",
        [(named | {"outcome": outcome}, value) for outcome, value in ends.items()],
    )
    yield gauge("pipeline_unsettled_records", "Records read that have not ended.", [(named, unsettled)])


_STAGE_COUNTERS: Mapping[str, tuple[str, Callable[[StageMetrics], float]]] = {
    "pipeline_records_in_total": ("Records that the stage took.", lambda each: each.records_in),
    "pipeline_batches_total": ("Batches that the stage dealt with.", lambda each: each.batches),
    "pipeline_attempts_total": ("Attempts, the first ones included.", lambda each: each.attempts),
    "pipeline_retries_total": ("Attempts after the first.", lambda each: each.retries),
    "pipeline_dead_letters_total": (
        "Records that became dead letters.",
        lambda each: each.failed.get("dead_letter", 0),
    ),
    "pipeline_stage_busy_seconds_total": ("Seconds of work, added up over workers.", lambda each: each.busy_seconds),
    "pipeline_stage_waiting_in_seconds_total": ("Seconds without input.", lambda each: each.waiting_in_seconds),
    "pipeline_stage_waiting_out_seconds_total": ("Seconds waiting to send.", lambda each: each.waiting_out_seconds),
}
_STAGE_GAUGES: Mapping[str, tuple[str, Callable[[StageMetrics], float]]] = {
    "pipeline_workers": ("Concurrency of the stage.", lambda each: each.concurrency),
    "pipeline_workers_active": ("Batches under way in the stage.", lambda each: each.in_flight),
}


def _stages(stages: Sequence[StageMetrics], named: Labels) -> Iterator[Metric]:
    yield counter(
        "pipeline_records_total",
        "Records by what became of them in a stage.",
        [
            (named | {"stage": each.name, "outcome": outcome}, value)
            for each in stages
            for outcome, value in _outcomes(each).items()
        ],
    )
    for name, (text, value) in _STAGE_COUNTERS.items():
        yield counter(name, text, [(named | {"stage": each.name}, value(each)) for each in stages])
    for name, (text, value) in _STAGE_GAUGES.items():
        yield gauge(name, text, [(named | {"stage": each.name}, value(each)) for each in stages])
    timed = [each for each in stages if each.role != "source"]
    yield histogram(
        "pipeline_batch_seconds",
        "Seconds that a batch took in a stage; in a batcher, to be gathered.",
        [(named | {"stage": each.name}, each.batch_seconds) for each in timed],
    )


def _outcomes(stage: StageMetrics) -> dict[str, int]:
    went_on = {"source": "read", "sink": "written"}.get(stage.role, "passed")
    found = {went_on: stage.records_in if stage.role == "source" else stage.records_out, "filtered": stage.filtered}
    if stage.already_held:
        found["already_held"] = stage.already_held
    return found | {_ENDS.get(policy, policy): count for policy, count in stage.failed.items()}


_BATCHER_HISTOGRAMS: Mapping[str, tuple[str, Callable[[BatcherMetrics], Histogram]]] = {
    "pipeline_batch_records": ("Records of a batch.", lambda each: each.sizes),
    "pipeline_record_seconds": (
        "Seconds from the admission of a batch's oldest record until the batch was through the sinks.",
        lambda each: each.record_seconds,
    ),
    "pipeline_slot_wait_seconds": ("Seconds that a ready batch waited for a permit.", lambda each: each.slot_wait),
}


def _batchers(
    batchers: Sequence[tuple[str, BatcherMetrics]], stages: Sequence[StageMetrics], named: Labels
) -> Iterator[Metric]:
    for name, (text, value) in _BATCHER_HISTOGRAMS.items():
        yield histogram(name, text, [(named | {"stage": stage}, value(each)) for stage, each in batchers])
    yield counter(
        "pipeline_batch_over_target_total",
        "Batches that took longer than the target.",
        [(named | {"stage": stage}, each.over) for stage, each in batchers if each.target[0] is not None],
    )
    yield counter(
        "pipeline_batch_unobserved_total",
        "Batches that were tried again or held up, from whose time nothing is learned.",
        [(named | {"stage": stage}, each.uneven) for stage, each in batchers],
    )
    yield gauge(
        "pipeline_batch_target_seconds",
        "The latency that the batcher aims at.",
        [(named | {"stage": stage}, each.target[0]) for stage, each in batchers if each.target[0] is not None],
        "max",
    )
    yield _by_reason("pipeline_batch_resizes_total", "Changes of the limit, by reason.", named, _resizes(batchers))
    triggers = [(stage.name, stage.triggers) for stage in stages if stage.role == "batcher"]
    yield _by_reason("pipeline_batch_closed_total", "Batches by why they were closed.", named, triggers)


def _resizes(batchers: Sequence[tuple[str, BatcherMetrics]]) -> list[tuple[str, dict[str, int]]]:
    return [(stage, each.resizes) for stage, each in batchers]


def _by_reason(name: str, text: str, named: Labels, counts: Iterable[tuple[str, Mapping[str, int]]]) -> Metric:
    return counter(
        name,
        text,
        [
            (named | {"stage": stage, "reason": reason}, count)
            for stage, reasons in counts
            for reason, count in reasons.items()
        ],
    )


def _laws(laws: Mapping[str, Mapping[str, float]], named: Labels) -> Iterator[Metric]:
    for name, (key, text) in _LAW.items():
        points = [(named | {"stage": stage}, law[key]) for stage, law in laws.items() if key in law]
        yield gauge(name, text, points, "max")


_CHANNEL_SUMS: Mapping[str, tuple[str, Callable[[ChannelStatus], float]]] = {
    "pipeline_channel_records": ("Records in the inbox of the stage.", lambda each: each.records),
    "pipeline_channel_batches": ("Batches in the inbox of the stage.", lambda each: each.batches),
    "pipeline_channel_bytes": ("Bytes in the inbox of the stage.", lambda each: each.bytes),
}
_CHANNEL_MOST: Mapping[str, tuple[str, Callable[[ChannelStatus], float]]] = {
    "pipeline_channel_fill_ratio": ("How full the inbox is, 0 to 1.", lambda each: each.fill),
    "pipeline_channel_peak_records": ("The most records that were in the inbox.", lambda each: each.peak_records),
}


def _channels(channels: Sequence[ChannelStatus], named: Labels) -> Iterator[Metric]:
    labelled = [(named | {"stage": each.stage}, each) for each in channels]
    for name, (text, value) in _CHANNEL_SUMS.items():
        yield gauge(name, text, [(labels, value(each)) for labels, each in labelled])
    for name, (text, value) in _CHANNEL_MOST.items():
        yield gauge(name, text, [(labels, value(each)) for labels, each in labelled], "max")
    yield counter(
        "pipeline_channel_blocked_seconds_total",
        "Seconds that senders waited for room in the inbox, added up.",
        [(labels, each.blocked_seconds) for labels, each in labelled],
    )


def _sources(sources: Sequence[SourceStatus], named: Labels) -> Iterator[Metric]:
    yield gauge(
        "pipeline_frontier_lag_records",
        "Records of the source between its frontier and the last one read.",
        [(named | {"source": each.name}, each.unsettled) for each in sources],
    )


def _breakers(stages: Sequence[StageMetrics], named: Labels) -> Iterator[Metric]:
    found = [(named | {"stage": each.name}, each) for each in stages if each.breaker]
    states = [(labels, _BREAKER.get(each.breaker, 2.0)) for labels, each in found]
    yield gauge("pipeline_breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.", states, "max")
    opened = [(labels, each.breaker_opened) for labels, each in found]
    yield counter("pipeline_breaker_opened_total", "Times that the circuit breaker has opened.", opened)
