"""A pipeline as the API shows it: what its plan says, with the numbers of its status."""

import math
from collections.abc import Callable, Mapping

from pipeline.plan.topology import PlannedStage, Topology
from pipeline.service.http.recent import BatchLog, StageRates
from pipeline.service.http.shapes import AccountView, ChannelView, SourceView, StageView
from pipeline.watch.report import Account, ChannelStatus, StageStatus, Status

__all__ = ("account_view", "source_views", "stage_views")

Mask = Callable[[str], str]


def account_view(account: Account) -> AccountView:
    """Return an account with what is unsettled in it."""
    return AccountView(**account.as_dict())


def source_views(status: Status | None) -> list[SourceView]:
    """Return how far the sources have come."""
    if status is None:
        return []
    return [
        SourceView(each.name, each.number & _NUMBER, each.unsettled, each.done, each.total, each.unit)
        for each in status.sources
    ]


def stage_views(
    topology: Topology, status: Status | None, rates: Mapping[str, StageRates], batches: BatchLog, mask: Mask
) -> list[StageView]:
    """Return the stages in the order of the data; before the first run only what the plan says of them."""
    numbers = {stage.name: stage for stage in status.stages} if status is not None else {}
    channels = {channel.stage: channel for channel in status.channels} if status is not None else {}
    views = [_planned(topology, stage, mask) for stage in topology.stages.values()]
    for view in views:
        if view.name in channels:
            view.channel = _channel(channels[view.name])
        if view.name in numbers:
            _fill(view, numbers[view.name], rates.get(view.name, (0.0, 0.0)), batches)
    return views


def _planned(topology: Topology, stage: PlannedStage, mask: Mask) -> StageView:
    guarantee = topology.guarantees().get(stage.name)
    view = StageView(
        name=stage.name,
        role=stage.role,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - one of the four
        kind=stage.kind,
        state="stopped",
        inputs=list(stage.inputs),
        concurrency=getattr(stage.spec, "concurrency", 1),
        on_failure=topology.policy_of(stage.name),
        when=mask(_condition(stage)),
    )
    if guarantee is not None:
        view.guarantee = guarantee.text.partition(":")[0]
    return view


def _fill(view: StageView, status: StageStatus, rates: StageRates, batches: BatchLog) -> None:
    for name in ("state", "records_in", "records_out", "filtered", "batches", "retries", "in_flight"):
        setattr(view, name, getattr(status, name))
    view.failed = dict(status.failed)
    view.rate_in, view.rate_out = rates
    view.mean_seconds = status.mean_seconds
    view.p95_seconds = status.p95_seconds if math.isfinite(status.p95_seconds) else None
    view.busy, view.waiting_in, view.waiting_out = status.busy, status.waiting_in, status.waiting_out
    if view.role == "batcher":
        view.batcher = batches.batcher(view.name, status.limit, status.last_batch, status.triggers)


def _channel(status: ChannelStatus) -> ChannelView:
    return ChannelView(
        status.batches, status.records, status.bytes, status.fill, status.peak_records, status.blocked_seconds
    )


def _condition(stage: PlannedStage) -> str:
    when = getattr(stage.spec, "when", None)
    if when is None or isinstance(when, str):
        return when or ""
    return str(getattr(when, "__name__", "a function"))


_NUMBER = (1 << 40) - 1
"""Above these bits the numbers of a source that can't replay carry the number of the run."""
