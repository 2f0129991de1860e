import pytest

from pipeline.batch import Batch
from pipeline.clock import SystemClock
from pipeline.stage import Resume, SinkContext
from stages.sinks import Discard

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_it_counts_what_it_lets_go_of() -> None:
    writer = await Discard().open(SinkContext("nowhere", "test", SystemClock()))
    await writer.write(Batch([1, 2], "feed"))
    await writer.write(Batch([3], "feed"))
    await writer.close()

    assert writer.count == 3


def test_nothing_of_it_lasts() -> None:
    assert not Discard().durable()
    assert Discard().resumes() is Resume.NONE
