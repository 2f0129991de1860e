"""A run in words: what its batchers did and why, where it was held up, and what to change."""

from collections.abc import Iterator

from msgspec import Struct, field

from pipeline.watch.advice import HeldUp, advice
from pipeline.watch.story import Story
from pipeline.watch.summary import BatcherSummary, Resize
from pipeline.watch.words import amount, counted, moment, records, seconds_text

__all__ = ("Explanation", "explain")


class Explanation(Struct, kw_only=True):
    """Sentences. ``verdict`` is one; ``batchers`` has a list for each, by name; ``shares`` one for each stage."""

    pipeline: str
    verdict: str
    batchers: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    bottleneck: str = ""
    shares: list[str] = field(default_factory=list[str])
    advice: list[str] = field(default_factory=list[str])

    def lines(self) -> Iterator[str]:
        """Yield all of it as lines of text."""
        yield f"{self.pipeline}: {self.verdict}"
        for name, sentences in self.batchers.items():
            yield ""
            yield f"batcher '{name}':"
            yield from (f"  {sentence}" for sentence in sentences)
        held_up = [self.bottleneck, *self.shares]
        for title, sentences in (("what held it up:", held_up), ("what to change:", self.advice)):
            yield ""
            yield title
            yield from (f"  {sentence}" for sentence in sentences)


def explain(story: Story) -> Explanation:
    """Explain a run."""
    held_up = HeldUp(story)
    return Explanation(
        pipeline=story.pipeline,
        verdict=_verdict(story),
        batchers={batcher.name: list(_batcher(story, batcher)) for batcher in story.summary.batchers},
        bottleneck=held_up.sentence(),
        shares=list(_shares(story)),
        advice=list(advice(story, held_up))
        or ["nothing: we know of no change of the config that would make it faster"],
    )


# --- what happened ---

_OUTCOMES = {
    "done": "read its input to the end",
    "drained": "was drained",
    "failed": "failed",
    "interrupted": "was stopped early",
    "late": "was stopped at the deadline of its drain",
    "stopped": "stopped at a record that failed",
}


def _verdict(story: Story) -> str:
    rate = story.account.settled / story.seconds if story.seconds > 0 else 0.0
    text = (
        f"run {story.run} began {moment(story.started, with_date=True)} and "
        f"{_OUTCOMES.get(story.outcome, story.outcome)} after {seconds_text(story.seconds)}: "
        f"{amount(story.account.read)} records, {amount(rate)} a second"
    )
    return f"{text}; {story.error}" if story.error else text


def _batcher(story: Story, batcher: BatcherSummary) -> Iterator[str]:
    if not batcher.batches:
        yield "no batch went through at its first attempt, so there is nothing to tell"
        return
    if batcher.target is None:
        yield f"a fixed size of {amount(batcher.start)}; {_why_cut(batcher)}"
        yield f"a batch took {_latencies(batcher)}"
        return
    yield _beginning(batcher)
    yield from (_turn(story, turn) for turn in batcher.turns)
    yield _resizes(batcher)
    yield _against_target(batcher)
    yield f"{_why_cut(batcher)}; a typical one had {records(batcher.typical)}, the largest {amount(batcher.largest)}"
    if batcher.per_record:
        yield (
            f"at the end a batch took {seconds_text(batcher.fixed)} and {seconds_text(batcher.per_record)} a record, "
            f"and its size left room for {batcher.headroom:.2g} times that, for slow ones and for waiting"
        )


def _beginning(batcher: BatcherSummary) -> str:
    came = ", learned in the run before" if batcher.warm else ""
    first = f"started at {amount(batcher.start)}{came}; the first batch ({records(batcher.first_size)})"
    text = f"{first} took {seconds_text(batcher.first_seconds)}"
    if batcher.climb_limit <= batcher.start:
        return text
    return (
        f"{text}; grew to {amount(batcher.climb_limit)} in {counted(batcher.climb_batches, 'batch', 'batches')} "
        f"({seconds_text(batcher.climb_seconds)})"
    )


def _turn(story: Story, turn: Resize) -> str:
    at = f"at {story.at(turn.seconds)}"
    if turn.reason == "infeasible":
        return f"{at} the target was found to be out of reach: even the smallest batch takes longer"
    if turn.reason == "feasible":
        return f"{at} the target came within reach again"
    factor = turn.factor if turn.reason == "slower" else 1 / turn.factor if turn.factor else 0.0
    much = f"{factor:.2g} times {turn.reason}" if factor >= 1.05 else turn.reason
    where = f" (stage '{turn.stage}')" if turn.stage else ""
    # By the time the limit was set the model may have learned of something else as well.
    contrary = turn.limit > turn.before if turn.reason == "slower" else turn.limit < turn.before
    cause = "" if contrary else f"batches got {much}{where} and "
    text = f"{at} {cause}the limit {_moved(turn.before, turn.limit)}"
    if turn.settled and abs(turn.settled - turn.limit) > 0.1 * turn.limit:
        text += f", then to about {amount(turn.settled)}"
    if turn.late:
        text += f"; {turn.late} batches in a row were over the target" if turn.late > 1 else "; one was over the target"
    return text


def _moved(before: int, after: int) -> str:
    if before == after:
        return f"stayed at {amount(after)}"
    return f"{'rose' if after > before else 'fell'} from {amount(before)} to {amount(after)}"


def _resizes(batcher: BatcherSummary) -> str:
    total = sum(batcher.resizes.values())
    if not total:
        return f"the limit stayed where it was, at {amount(batcher.last)}"
    reasons = ", ".join(f"{count} {_REASONS.get(reason, reason)}" for reason, count in batcher.resizes.items())
    changes = counted(total, "change", "changes")
    return f"{changes} of the limit worth a line: {reasons}; it ended at {amount(batcher.last)}"


_REASONS = {
    "first": "by the first timing",
    "growth": "doubling",
    "fit": "as the estimate got better",
    "slower": "because batches got slower",
    "faster": "because they got faster",
    "bounds": "held by the smallest or largest size",
    "infeasible": "as the target was out of reach",
    "feasible": "as it came within reach",
    "target": "by another target",
}


def _against_target(batcher: BatcherSummary) -> str:
    target = batcher.target or 0.0
    of = "a batch" if batcher.settings.get("latency_of") == "batch" else "a batch's oldest record"
    text = (
        f"{of} took {_latencies(batcher)}, against a target of {seconds_text(target)}: "
        f"{batcher.over_share:.1%} of {amount(batcher.batches)} batches were over it"
    )
    return f"{text}; the target is out of reach" if batcher.infeasible else text


def _latencies(batcher: BatcherSummary) -> str:
    return f"{seconds_text(batcher.median_latency)} as a rule and {seconds_text(batcher.p95_latency)} at p95"


def _why_cut(batcher: BatcherSummary) -> str:
    total = sum(batcher.triggers.values())
    if not total:
        return "no batch was cut"
    most = sorted(batcher.triggers.items(), key=lambda pair: -pair[1])[:3]
    most = [pair for pair in most if pair[1] >= 0.01 * total] or most[:1]
    return "batches went " + ", ".join(f"{count / total:.0%} {_TRIGGERS.get(name, name)}" for name, count in most)


_TRIGGERS = {
    "size": "because they were full",
    "bytes": "at their bound of bytes",
    "linger": "because their time was up",
    "latency": "because the target left no more time to fill",
    "idle": "because hardly another record was expected",
    "key": "to make room for another key",
    "pressure": "because too much was held in memory",
    "flush": "by wish",
    "end": "at the end of the input",
}


def _shares(story: Story) -> Iterator[str]:
    for each in story.stages:
        if each.role != "batcher":
            waits = f"{each.waiting_in:.0%} waiting for input, {each.waiting_out:.0%} waiting to send"
            yield f"{each.name}: {each.busy:.0%} at work, {waits}"
