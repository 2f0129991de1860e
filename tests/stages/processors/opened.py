"""Open a processor and use its work, as the engine would."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pipeline.clock import SystemClock
from pipeline.stage import Each, KeyedState, Processor, StageContext, Work

W = TypeVar("W", bound=Work)


def context(name: str = "stage", state: KeyedState | None = None, warnings: list[str] | None = None) -> StageContext:
    return StageContext(name, "test", SystemClock(), state=state, warn=([] if warnings is None else warnings).append)


@asynccontextmanager
async def opened(spec: Processor, kind: type[W], **told: Any) -> AsyncGenerator[W]:
    work = await spec.open(context(**told))
    try:
        assert isinstance(work, kind)
        yield work
    finally:
        if work.close is not None:
            await work.close()


async def each(spec: Processor, *records: Any) -> list[Any]:
    async with opened(spec, Each) as work:
        return [work.function(record) for record in records]
