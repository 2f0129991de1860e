"""Which stage a run waited for, and what to change in its config."""

import math
from collections.abc import Iterator

from pipeline.watch.report import StageStatus
from pipeline.watch.story import Story
from pipeline.watch.summary import BatcherSummary, StageTraits
from pipeline.watch.words import amount, records, seconds_text

__all__ = ("HeldUp", "advice")

_BUSY = 0.5
"""Share of its time that a stage must have worked to be what others wait for."""
_SHARED = 0.8
"""Share of the time that stages in the one thread must have worked, together, for the thread to be what is short."""
_UNEVEN = 4.0
"""Headroom beyond what waiting for a permit (twice) and ordinary noise make of it."""
_COSTLY = 0.2
_CHEAP = 0.05
_MOST_CONCURRENCY = 4
"""Times the concurrency that is advised at once: what lies further off nobody can know."""


class HeldUp:
    """The stage that the others waited for, if there is one."""

    def __init__(self, story: Story) -> None:
        self.story = story
        working = [stage for stage in story.stages if stage.role != "batcher"]
        self.stages = sorted(working, key=lambda stage: -stage.busy)
        first = self.stages[0] if self.stages else None
        self.stage = first if first is not None and first.busy >= _BUSY else None
        self.thread = self.stage is None and sum(map(self._in_thread, working)) >= _SHARED
        """Whether no stage is the slowest, but all of them together keep the one thread busy."""

    @property
    def runner_up(self) -> StageStatus | None:
        """The next busiest."""
        return self.stages[1] if len(self.stages) > 1 else None

    def traits(self, stage: StageStatus) -> StageTraits:
        """Return how a stage was set up."""
        return self.story.summary.stages.get(stage.name, StageTraits())

    def sentence(self) -> str:
        """Say where the time went."""
        if not self.story.account.read:
            return "nothing: nothing was read"
        if self.stage is not None:
            return self._slowest(self.stage)
        if self.thread:
            return "the one thread of the process: no stage worked half of the time, but together they filled it"
        return "nothing for long: the stages mostly waited for records"

    def _slowest(self, stage: StageStatus) -> str:
        waits = [each.name for each in self.story.stages if each.waiting_out > _BUSY and each.name != stage.name]
        behind = f", while {' and '.join(waits)} waited to send" if waits else ""
        what = "read or waited for its input" if stage.role == "source" else "worked"
        return f"{stage.role} '{stage.name}' {what} {stage.busy:.0%} of the time{behind}"

    def _in_thread(self, stage: StageStatus) -> float:
        traits = self.traits(stage)
        inline = stage.role == "processor" and not traits.asynchronous and traits.executor in ("", "inline")
        return stage.busy if inline or stage.role == "source" else 0.0


def advice(story: Story, held: HeldUp) -> Iterator[str]:
    """Yield what to change, in the words of the config; nothing when there is nothing that we know of."""
    for batcher in story.summary.batchers:
        yield from _batcher_advice(batcher, held.stage)
    if held.thread:
        yield "move what computes most into a 'call' with executor: process, or run several pipelines, each on a part"
    if held.stage is not None and story.account.read:
        yield from _stage_advice(story, held, held.stage)


def _stage_advice(story: Story, held: HeldUp, stage: StageStatus) -> Iterator[str]:
    traits = held.traits(stage)
    if stage.role == "source":
        yield f"nothing behind '{stage.name}' would make it faster: all of it waited for what it read"
    elif stage.role == "processor" and traits.executor == "inline" and not traits.asynchronous:
        yield (
            f"give '{stage.name}' executor: thread if it waits, or executor: process if it computes, "
            f"with concurrency: {_wanted(held, stage, traits)}; inline it holds up everything else"
        )
    elif stage.role == "processor" and not traits.executor:
        yield f"'{stage.name}' computes in the one thread of the process: filter before it, or let it do less"
    elif not traits.one_at_a_time:
        yield _more_at_a_time(held, stage, traits)
    elif not story.summary.batchers:
        size = amount(stage.records_in / stage.batches) if stage.batches else "few"
        yield f"put a batcher before '{stage.name}': it was handed {size} records at a time"
    else:
        yield f"sink '{stage.name}' takes one batch at a time: larger batches or a faster disk, nothing else helps"


def _more_at_a_time(held: HeldUp, stage: StageStatus, traits: StageTraits) -> str:
    text = f"raise concurrency of '{stage.name}' from {traits.concurrency} to {_wanted(held, stage, traits)}"
    after = held.runner_up
    if after is None:
        return text
    return f"{text}, if what it calls can bear that; the next to be busy is '{after.name}' ({after.busy:.0%} now)"


def _wanted(held: HeldUp, stage: StageStatus, traits: StageTraits) -> int:
    """Return the concurrency with which the next busiest stage would be as busy, or four times what there is."""
    after = held.runner_up
    factor = stage.busy / after.busy if after is not None and after.busy > 0 else math.inf
    return max(traits.concurrency + 1, math.ceil(traits.concurrency * min(factor, _MOST_CONCURRENCY)))


def _batcher_advice(batcher: BatcherSummary, slowest: StageStatus | None) -> Iterator[str]:
    total = sum(batcher.triggers.values())
    if total and batcher.triggers.get("pressure", 0) > 0.2 * total:
        yield f"'{batcher.name}' was pressed to send early: raise checkpoint.max_unsettled or memory"
    if batcher.target is None or not batcher.batches:
        return
    if batcher.infeasible:
        yield _out_of_reach(batcher, batcher.target)
        return
    allowed = 1 - _share(batcher)
    if batcher.batches >= 100 and batcher.over_share > 1.5 * allowed:
        yield (
            f"{batcher.over_share:.0%} of the batches of '{batcher.name}' were over the target, {allowed:.0%} may be: "
            f"times change too fast to follow; raise its margin or its target"
        )
    if batcher.headroom > _UNEVEN:
        yield (
            f"batches of '{batcher.name}' vary: {batcher.headroom:.2g} times what their size explains has to be left "
            f"free for the slow ones; to find out what holds those up gains more than any key"
        )
    if slowest is None or slowest.role == "source" or not batcher.per_record:
        return
    if total and batcher.triggers.get("size", 0) < 0.5 * total:
        yield f"batches of '{batcher.name}' were rarely full, so its largest size was not what held it up"
        return
    yield from _size_advice(batcher, batcher.target)


def _size_advice(batcher: BatcherSummary, target: float) -> Iterator[str]:
    """Say what another bound or target would bring, by the model: records a second are size over time of a batch."""
    size, most = max(batcher.last, 1), batcher.settings.get("max_size") or math.inf
    share = batcher.fixed / batcher.predict(size)
    if size >= most:
        fits = _fitting(batcher, target)
        if fits > 1.1 * size and _gain(batcher, fits) > 0.02:
            yield (
                f"raise max_size of '{batcher.name}' from {amount(size)}: the target leaves room for about "
                f"{amount(_rounded(fits))}, {_gain(batcher, fits):.0%} more records a second"
            )
    elif share > _COSTLY:
        larger = min(_fitting(batcher, 2 * target), most)
        yield (
            f"{share:.0%} of a batch's time is spent whatever its size: target_latency {seconds_text(2 * target)} for "
            f"'{batcher.name}' would give about {amount(_rounded(larger))} records a batch and "
            f"{_gain(batcher, larger):.0%} more a second"
        )
    elif share < _CHEAP and batcher.over_share <= 1 - _share(batcher):
        lost = -_gain(batcher, max(_fitting(batcher, target / 2), 1.0))
        price = f"{lost:.0%} fewer records a second" if lost >= 0.005 else "as many records a second"
        yield f"target_latency of '{batcher.name}' could be {seconds_text(target / 2)} for {price}"


def _out_of_reach(batcher: BatcherSummary, target: float) -> str:
    least = batcher.settings.get("min_size") or 1
    needed = max(1.0, batcher.headroom) * batcher.predict(least) / (1 - _margin(batcher))
    return (
        f"target_latency of '{batcher.name}' ({seconds_text(target)}) is out of reach: {records(least)} "
        f"{'take' if least > 1 else 'takes'} {seconds_text(needed)} with all waits; raise it to that, "
        f"or raise concurrency behind it"
    )


def _fitting(batcher: BatcherSummary, target: float) -> float:
    budget = target * (1 - _margin(batcher)) / max(1.0, batcher.headroom)
    return (budget - batcher.fixed) / batcher.per_record


def _gain(batcher: BatcherSummary, size: float) -> float:
    now = max(batcher.last, 1)
    return (size / batcher.predict(size)) / (now / batcher.predict(now)) - 1


def _margin(batcher: BatcherSummary) -> float:
    return float(batcher.settings.get("margin") or 0.0)


def _share(batcher: BatcherSummary) -> float:
    percentile = batcher.settings.get("percentile")
    return percentile / 100 if isinstance(percentile, int | float) else 0.5


def _rounded(size: float) -> float:
    return float(f"{size:.2g}")
