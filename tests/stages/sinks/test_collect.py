import pytest

from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.errors import StageError
from pipeline.stage import Resume, SinkContext
from stages.sinks import Collect

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def context() -> SinkContext:
    return SinkContext("results", "test", SystemClock())


async def test_it_keeps_the_records_in_order_and_after_it_is_closed() -> None:
    writer = await Collect().open(context())
    await writer.write(Batch([1, 2], "feed"))
    await writer.write(Batch([3], "feed"))
    await writer.close()

    assert writer.records == [1, 2, 3]


async def test_each_run_begins_with_nothing() -> None:
    sink = Collect()
    await (await sink.open(context())).write(Batch([1], "feed"))

    assert (await sink.open(context())).records == []


async def test_more_than_the_limit_is_an_error_that_says_what_to_do() -> None:
    writer = await Collect(limit=3).open(context())
    await writer.write(Batch([1, 2], "feed"))

    with pytest.raises(StageError, match="over 3 records to keep in memory; raise `limit`"):
        await writer.write(Batch([3, 4], "feed"))
    assert writer.records == [1, 2]
    await writer.write(Batch([3], "feed"))


def test_nothing_of_it_lasts() -> None:
    assert not Collect().durable()
    assert Collect().resumes() is Resume.NONE
