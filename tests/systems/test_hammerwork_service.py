"""Rows H of the checklist that are about a service: who hands in a batch is told when it is done."""

from pathlib import Path

import anyio
import pytest

from pipeline import Pipeline
from stages import batchers, processors, sinks, sources
from tests.service.http.process import serving

pytestmark = pytest.mark.anyio


async def test_h12_whoever_submits_a_batch_waits_for_its_end_without_polling() -> None:
    """``await submit_many`` returns when the last record is through, and ``wait`` when the pipeline has ended."""
    done: list[int] = []

    async def work(batch: list[int]) -> list[int]:
        await anyio.sleep(0.01)
        done.extend(batch)
        return batch

    pipeline = (
        Pipeline("waiting", checkpoint="none")
        | sources.Inlet()
        | batchers.Fixed(size=10, linger=0.01)
        | processors.Call(work, batch=True)
        | sinks.Discard()
    )
    async with pipeline.service() as service:
        answers = await service.submit_many(range(55))
        assert [answer.record for answer in answers] == list(range(55))
        assert sorted(done) == list(range(55))
        async with anyio.create_task_group() as group:
            group.start_soon(service.drain)
            await service.wait()
        account = service.status().account
    assert (account.read, account.unsettled) == (55, 0)


def test_h12_over_http_the_answer_comes_when_the_batch_is_done(tmp_path: Path) -> None:
    """One request a batch, whose answer says what became of each of its records."""
    with serving(tmp_path) as server:
        records = [{"id": number, "kind": "email"} for number in range(100)]
        status, answers = server.ask("/api/pipelines/tasks/records/many", {"records": records})
        assert (status, answers["answered"], answers["failed"]) == (200, 100, 0)
        assert server.ask("/api/pipelines/tasks/stats")[1]["submitted"]["open"] == 0
