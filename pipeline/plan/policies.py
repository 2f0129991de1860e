"""Which of the engine's keys about failures fit the way a stage works."""

from collections.abc import Iterator

from pipeline.stage import Processor, Sink, Stage

__all__ = ("policy_problems",)


def policy_problems(spec: Stage, per_record: bool | None = None) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the keys of a stage: pairs of a key and a text.

    ``per_record`` says whether it takes single records; left out, the declaration is asked, and what it can't tell
    before it is opened is let through.
    """
    if isinstance(spec, Processor) and per_record is None:
        per_record = spec.per_record()
    if isinstance(spec, Sink):
        per_record = False
    if not isinstance(spec, Processor | Sink):
        return
    if per_record and spec.acknowledge != "each":
        yield "acknowledge", f"{spec.acknowledge} is for stages that handle batches; this one takes single records"
    if per_record is False and spec.rate_limit is not None and spec.rate_limit.per == "record":
        yield "rate_limit.per", "this stage is called with batches, not with records; expected call"
